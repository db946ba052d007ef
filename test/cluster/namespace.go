package cluster

import (
	"context"
	"fmt"
	"strings"
	"testing"
	"time"

	corev1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/util/wait"
)

const (
	// timeout is how long the controllers may take for a namespace on a slow machine.
	timeout      = 2 * time.Minute
	pollInterval = 100 * time.Millisecond
)

// makeNamespace creates the test's namespace, and deletes it when the test ends.
func (c *Cluster) makeNamespace(t testing.TB, await bool) {
	t.Helper()
	ctx := t.Context()
	namespace, err := c.Client.CoreV1().Namespaces().Create(ctx, &corev1.Namespace{
		ObjectMeta: metav1.ObjectMeta{GenerateName: "test-"},
	}, metav1.CreateOptions{})
	if err != nil {
		t.Fatalf("creating a namespace: %v", err)
	}
	c.Namespace = namespace.Name
	t.Cleanup(func() {
		ctx := context.WithoutCancel(ctx) // A test's context ends before its cleanups.
		if t.Failed() {
			t.Log(c.report(ctx))
		}
		if err := c.removeNamespace(ctx); err != nil {
			t.Error(err)
			return
		}
		if !await {
			return
		}
		if err := c.namespaceGone(ctx); err != nil {
			t.Error(err)
		}
	})
	if err := wait.PollUntilContextTimeout(ctx, pollInterval, timeout, true, c.hasPodDefaults); err != nil {
		t.Fatalf("waiting for the service account and CA certificate of namespace %s: %v", c.Namespace, err)
	}
}

// hasPodDefaults reports whether the controllers have created what every pod needs:
// the default service account, without which the API server rejects the pod, and the
// cluster's CA certificate, without which it starts late.
func (c *Cluster) hasPodDefaults(ctx context.Context) (bool, error) {
	core := c.Client.CoreV1()
	_, accountErr := core.ServiceAccounts(c.Namespace).Get(ctx, "default", metav1.GetOptions{})
	_, authorityErr := core.ConfigMaps(c.Namespace).Get(ctx, "kube-root-ca.crt", metav1.GetOptions{})
	for _, err := range []error{accountErr, authorityErr} {
		if err != nil {
			return false, ignoreNotFound(err)
		}
	}
	return true, nil
}

func ignoreNotFound(err error) error {
	if apierrors.IsNotFound(err) {
		return nil
	}
	return err
}

// removeNamespace deletes the namespace, and its pods with a grace period of one
// second.
func (c *Cluster) removeNamespace(ctx context.Context) error {
	err := c.Client.CoreV1().Namespaces().Delete(ctx, c.Namespace, metav1.DeleteOptions{})
	if ignoreNotFound(err) != nil {
		return fmt.Errorf("removing namespace %s: %w", c.Namespace, err)
	}
	// Many test programs ignore SIGTERM: do not wait 30 seconds for them.
	second := int64(1)
	err = c.Client.CoreV1().Pods(c.Namespace).DeleteCollection(ctx,
		metav1.DeleteOptions{GracePeriodSeconds: &second}, metav1.ListOptions{})
	if ignoreNotFound(err) != nil {
		return fmt.Errorf("removing the pods of namespace %s: %w", c.Namespace, err)
	}
	return nil
}

// namespaceGone returns when the namespace is gone, or an error that says what blocks
// it.
func (c *Cluster) namespaceGone(ctx context.Context) error {
	var last *corev1.Namespace
	err := wait.PollUntilContextTimeout(ctx, pollInterval, timeout, true, func(ctx context.Context) (bool, error) {
		now, err := c.Client.CoreV1().Namespaces().Get(ctx, c.Namespace, metav1.GetOptions{})
		if err != nil {
			return apierrors.IsNotFound(err), ignoreNotFound(err)
		}
		last = now
		return false, nil
	})
	if err != nil {
		return fmt.Errorf("waiting until namespace %s is gone: %w; %s", c.Namespace, err, remainingObjects(last))
	}
	return nil
}

// remainingObjects returns what the API server says is left in a namespace.
func remainingObjects(namespace *corev1.Namespace) string {
	var held []string
	if namespace != nil {
		for _, condition := range namespace.Status.Conditions {
			if condition.Status == corev1.ConditionTrue {
				held = append(held, condition.Message)
			}
		}
	}
	return "the API server reports what is left: " + strings.Join(held, "; ")
}
