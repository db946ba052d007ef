package controller

import (
	"cmp"
	"context"
	"fmt"
	"slices"
	"strings"

	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"sigs.k8s.io/controller-runtime/pkg/client"

	"github.com/holdfast-io/holdfast/internal/kube"
	"github.com/holdfast-io/holdfast/internal/snapshot"
	snapshotcontroller "github.com/holdfast-io/holdfast/internal/snapshot/controller"
)

// Sources implements SnapshotKind: the claims that a group selects, sorted by name. An
// invalid selector selects none.
func (k *groupKind) Sources(ctx context.Context, from client.Reader, of *snapshotcontroller.Snapshot) ([]snapshot.Source, error) {
	selector, err := metav1.LabelSelectorAsSelector(asGroup(of.Object).Spec.Source.Selector)
	if err != nil {
		return nil, nil //nolint:nilerr // Validate reports it.
	}
	claims := &corev1.PersistentVolumeClaimList{}
	if err := from.List(ctx, claims, client.InNamespace(of.Object.GetNamespace()), client.MatchingLabelsSelector{Selector: selector}); err != nil {
		return nil, fmt.Errorf("listing the claims that the group snapshot selects: %w", err)
	}
	var all []snapshot.Source
	for i := range claims.Items {
		source := snapshot.Source{Name: claims.Items[i].Name, Claim: &claims.Items[i]}
		if err := kube.GetIfExists(ctx, k.client, client.ObjectKey{Name: source.Claim.Spec.VolumeName}, &source.Volume); err != nil {
			return nil, err
		}
		all = append(all, source)
	}
	slices.SortFunc(all, func(a, b snapshot.Source) int { return cmp.Compare(a.Name, b.Name) })
	return all, nil
}

// Validate implements SnapshotKind. It reports all problems at once, and rejects the
// group if one of its claims is not usable.
func (*groupKind) Validate(of *snapshotcontroller.Snapshot, sources []snapshot.Source) *snapshot.Problem {
	selector := asGroup(of.Object).Spec.Source.Selector
	if selector == nil {
		return snapshot.Problemf(reasonValidation, "the group snapshot has neither a selector of claims nor a content as its source: one of them is needed")
	}
	if _, err := metav1.LabelSelectorAsSelector(selector); err != nil {
		return snapshot.Problemf(reasonValidation, "the selector of claims is invalid: %v", err)
	}
	if len(sources) == 0 {
		return snapshot.Problemf(reasonCreate, "no claim of namespace %s matches the selector (%s)",
			of.Object.GetNamespace(), metav1.FormatLabelSelector(selector))
	}
	var texts, drivers []string
	for i := range sources {
		if problem := sources[i].Check(); problem != nil {
			texts = append(texts, problem.Text)
			continue
		}
		drivers = append(drivers, sources[i].Volume.Spec.CSI.Driver)
	}
	slices.Sort(drivers)
	if drivers = slices.Compact(drivers); len(drivers) > 1 {
		texts = append(texts, "the claims have volumes of different drivers ("+joinNames(drivers)+"): a group snapshot can only be taken of volumes of one driver")
	}
	if len(texts) == 0 {
		return nil
	}
	return snapshot.Problemf(reasonCreate, "%s", strings.Join(texts, "; "))
}

func joinNames(names []string) string { return strings.Join(names, ", ") }
