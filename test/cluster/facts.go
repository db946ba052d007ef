package cluster

import (
	"bytes"
	"cmp"
	"context"
	"fmt"
	"slices"

	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
)

// logLines is how many lines of a container's log a failed test shows.
const logLines = 40

// report describes the namespace: its events, its pods and their logs.
func (c *Cluster) report(ctx context.Context) string {
	var text bytes.Buffer
	fmt.Fprintf(&text, "namespace %s of cluster %s:\n", c.Namespace, c.Name)
	if c.shared.output != nil {
		fmt.Fprintf(&text, "output of devcluster:\n%s", c.shared.output)
	}
	if c.shared.ended.Load() {
		text.WriteString("the cluster has ended\n")
		return text.String()
	}
	c.writeNodes(ctx, &text)
	c.writeEvents(ctx, &text)
	pods, err := c.Client.CoreV1().Pods(c.Namespace).List(ctx, metav1.ListOptions{})
	if err != nil {
		fmt.Fprintf(&text, "listing pods: %v\n", err)
		return text.String()
	}
	if len(pods.Items) == 0 {
		text.WriteString("the namespace has no pods\n")
	}
	for i := range pods.Items {
		c.writePod(ctx, &text, &pods.Items[i])
	}
	return text.String()
}

// writeNodes names the nodes that are not ready: their pods are in trouble, too.
func (c *Cluster) writeNodes(ctx context.Context, text *bytes.Buffer) {
	nodes, err := c.Client.CoreV1().Nodes().List(ctx, metav1.ListOptions{})
	if err != nil {
		fmt.Fprintf(text, "listing nodes: %v\n", err)
		return
	}
	for i := range nodes.Items {
		if !isReady(&nodes.Items[i]) {
			fmt.Fprintf(text, "node %s is not ready: %+v\n", nodes.Items[i].Name, nodes.Items[i].Status.Conditions)
		}
	}
}

func (c *Cluster) writeEvents(ctx context.Context, text *bytes.Buffer) {
	events, err := c.Client.CoreV1().Events(c.Namespace).List(ctx, metav1.ListOptions{})
	if err != nil {
		fmt.Fprintf(text, "listing events: %v\n", err)
		return
	}
	slices.SortStableFunc(events.Items, func(a, b corev1.Event) int { return a.CreationTimestamp.Compare(b.CreationTimestamp.Time) })
	for _, e := range events.Items {
		fmt.Fprintf(text, "event %s %s %s/%s: %s: %s\n", e.CreationTimestamp.Format("15:04:05"),
			e.Type, e.InvolvedObject.Kind, e.InvolvedObject.Name, e.Reason, e.Message)
	}
}

func (c *Cluster) writePod(ctx context.Context, text *bytes.Buffer, pod *corev1.Pod) {
	fmt.Fprintf(text, "pod %s on %s: %s %s\n", pod.Name, cmp.Or(pod.Spec.NodeName, "no node"), pod.Status.Phase, pod.Status.Message)
	for _, status := range slices.Concat(pod.Status.InitContainerStatuses, pod.Status.ContainerStatuses) {
		fmt.Fprintf(text, "  container %s: %s\n", status.Name, state(status.State))
		c.writeLog(ctx, text, pod.Name, status.Name, false)
		if status.RestartCount > 0 {
			fmt.Fprintf(text, "  before, of %d restarts: %s\n", status.RestartCount, state(status.LastTerminationState))
			c.writeLog(ctx, text, pod.Name, status.Name, true)
		}
	}
}

func state(s corev1.ContainerState) string {
	switch {
	case s.Waiting != nil:
		return fmt.Sprintf("waiting: %s %s", s.Waiting.Reason, s.Waiting.Message)
	case s.Terminated != nil:
		return fmt.Sprintf("ended with code %d: %s %s", s.Terminated.ExitCode, s.Terminated.Reason, s.Terminated.Message)
	case s.Running != nil:
		return "running"
	default:
		return "unknown"
	}
}

func (c *Cluster) writeLog(ctx context.Context, text *bytes.Buffer, pod, container string, previous bool) {
	lines := int64(logLines)
	log, err := c.Client.CoreV1().Pods(c.Namespace).GetLogs(pod, &corev1.PodLogOptions{
		Container: container, Previous: previous, TailLines: &lines,
	}).DoRaw(ctx)
	if err != nil {
		fmt.Fprintf(text, "    no log: %v\n", err)
		return
	}
	for line := range bytes.Lines(log) {
		fmt.Fprintf(text, "    %s", line)
	}
}
