package pending

import (
	"errors"
	"fmt"
	"strings"

	coordinationv1 "k8s.io/api/coordination/v1"
	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/types"
)

// An InvalidError is about a Lease with our label that no provisioner of this driver has
// written so, or that somebody has changed. It is not carried out: it could name the
// volume of another claim, or a secret.
type InvalidError struct {
	Lease  *coordinationv1.Lease // its identity only
	Reason string
}

func (e *InvalidError) Error() string {
	return fmt.Sprintf("Lease %s/%s is no pending operation that can be carried out: %s; if driver and API server have no volume of it, delete it",
		e.Lease.Namespace, e.Lease.Name, e.Reason)
}

func invalid(lease *coordinationv1.Lease, format string, args ...any) error {
	return &InvalidError{identityOf(lease.Namespace, lease.Name, lease.UID), fmt.Sprintf(format, args...)}
}

// errOtherDriver is about an operation of another driver. Earlier versions gave drivers
// such as a.b and a-b one label.
var errOtherDriver = errors.New("it is another driver's")

// validate checks that an operation is what this driver's provisioner records in a Lease of
// this name.
func (op *Operation) validate(lease *coordinationv1.Lease, driver string) error {
	claim := op.Volume.Spec.ClaimRef
	switch name := op.Volume.Name; {
	case op.Volume.Spec.CSI.Driver != driver:
		return fmt.Errorf("reading Lease %s/%s: its volume is of driver %s: %w", lease.Namespace, lease.Name, op.Volume.Spec.CSI.Driver, errOtherDriver)
	case claim.UID == "" || lease.Name != LeaseName(claim.UID):
		return invalid(lease, "its volume is for the claim with UID %q", claim.UID)
	case op.Request.GetName() != name:
		return invalid(lease, "it requests volume %q for PersistentVolume %q", op.Request.GetName(), name)
	case !isNamedAfter(name, claim.UID):
		return invalid(lease, "the volume's name %q is not made from the UID of its claim", name)
	case op.Request.GetCapacityRange().GetRequiredBytes() < 0 || op.Request.GetCapacityRange().GetLimitBytes() < 0:
		return invalid(lease, "it requests a negative size")
	case len(op.Request.GetSecrets()) > 0 || op.Volume.Spec.CSI.VolumeHandle != "":
		return invalid(lease, "it has secrets, or a volume handle, which are never recorded so")
	}
	return op.validateAnnotations(lease)
}

// validateAnnotations checks the annotations that repeat parts of the operation for event
// handlers and indexes.
func (op *Operation) validateAnnotations(lease *coordinationv1.Lease) error {
	for annotation, want := range map[string]string{claimAnnotation: op.Claim().String(), volumeAnnotation: op.Volume.Name} {
		if got, ok := lease.Annotations[annotation]; ok && got != want {
			return invalid(lease, "its annotation %s is %q, but the operation is for %q", annotation, got, want)
		}
	}
	return nil
}

// isNamedAfter reports whether a volume's name ends with a claim's UID: the whole one, or
// the first characters of the one without dashes, as the flags for names have it.
func isNamedAfter(name string, claim types.UID) bool {
	prefix, whole := strings.CutSuffix(name, "-"+string(claim))
	if whole && prefix != "" {
		return true
	}
	at := strings.LastIndex(name, "-")
	id := name[at+1:]
	return at > 0 && id != "" && strings.HasPrefix(strings.ReplaceAll(string(claim), "-", ""), id)
}

// validateFor checks that an operation is what the claim that it names asks for. The size
// of a claim does not change before it has a volume.
func (op *Operation) validateFor(claim *corev1.PersistentVolumeClaim) error {
	if claim == nil || claim.UID != op.ClaimUID() || claim.Spec.VolumeName != "" {
		return nil
	}
	want := claim.Spec.Resources.Requests.Storage().Value() // 0 if the claim is reduced in the cache.
	if got := op.Request.GetCapacityRange().GetRequiredBytes(); want != 0 && got != want {
		return invalid(op.Lease(), "it requests %d bytes, and the claim %d", got, want)
	}
	return nil
}
