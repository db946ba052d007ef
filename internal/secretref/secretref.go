// Package secretref resolves the secrets that a class names for CSI calls.
package secretref

import (
	"fmt"
	"regexp"
	"slices"
	"strings"

	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/util/validation"

	"github.com/holdfast-io/holdfast/internal/kube"
)

const (
	suffixName      = "-name"
	suffixNamespace = "-namespace"
)

// A Use is a purpose for which a class may name a secret. See "StorageClass Secrets" in the
// CSI developer documentation.
type Use struct {
	key           string // of the parameters, between the prefix and -name or -namespace
	deprecatedKey string // the deprecated keys are this with Name and Namespace behind
}

// The uses in StorageClasses. Default is the fallback of all others.
var (
	Default           = Use{key: "secret"}
	Provision         = Use{key: "provisioner-secret", deprecatedKey: "csiProvisionerSecret"}
	ControllerPublish = Use{key: "controller-publish-secret", deprecatedKey: "csiControllerPublishSecret"}
	NodeStage         = Use{key: "node-stage-secret", deprecatedKey: "csiNodeStageSecret"}
	NodePublish       = Use{key: "node-publish-secret", deprecatedKey: "csiNodePublishSecret"}
	ControllerExpand  = Use{key: "controller-expand-secret"}
	NodeExpand        = Use{key: "node-expand-secret"}
	ControllerModify  = Use{key: "controller-modify-secret"}

	// Uses are all uses in StorageClasses.
	Uses = []Use{
		Default, Provision, ControllerPublish, NodeStage, NodePublish,
		ControllerExpand, NodeExpand, ControllerModify,
	}
)

// ResolveAll resolves every secret that a class names for a claim's volume.
func ResolveAll(class map[string]string, claim *corev1.PersistentVolumeClaim, volume string) (map[Use]*corev1.SecretReference, error) {
	refs := map[Use]*corev1.SecretReference{}
	for _, use := range Uses {
		ref, err := use.resolveForVolume(class, claim, volume)
		if err != nil {
			return nil, err
		}
		if ref == nil {
			ref = refs[Default]
		}
		refs[use] = ref
	}
	return refs, nil
}

// Keys returns the parameters of a class that name the secret.
func (u Use) Keys() (name, namespace string) {
	return kube.ReservedParameterPrefix + u.key + suffixName, kube.ReservedParameterPrefix + u.key + suffixNamespace
}

// New returns a use in classes of another kind. The key is the part of the parameters between
// the prefix and -name or -namespace.
func New(key string) Use { return Use{key: key} }

// Tokens are the values of ${TOKEN} in the namespace and in the name of a secret.
type Tokens struct{ Namespace, Name map[string]string }

func (u Use) resolveForVolume(class map[string]string, claim *corev1.PersistentVolumeClaim, volume string) (*corev1.SecretReference, error) {
	tokens := Tokens{
		Namespace: map[string]string{"pv.name": volume, "pvc.namespace": claim.Namespace},
		Name:      map[string]string{"pv.name": volume, "pvc.namespace": claim.Namespace, "pvc.name": claim.Name},
	}
	for key, value := range claim.Annotations {
		tokens.Name["pvc.annotations['"+key+"']"] = value
	}
	return u.Resolve(class, tokens)
}

// Resolve returns the secret that a class names for the use, or nil if it names none.
func (u Use) Resolve(class map[string]string, tokens Tokens) (*corev1.SecretReference, error) {
	name, namespace, err := u.templates(class)
	if err != nil || name == "" {
		return nil, err
	}
	resolvedNamespace, err := expand(namespace, tokens.Namespace)
	if err != nil {
		return nil, fmt.Errorf("namespace of the %s: %w", u.label(), err)
	}
	if problems := validation.IsDNS1123Label(resolvedNamespace); len(problems) > 0 {
		return nil, fmt.Errorf("namespace of the %s: %q (from %q): %s", u.label(), resolvedNamespace, namespace, strings.Join(problems, "; "))
	}
	resolvedName, err := expand(name, tokens.Name)
	if err != nil {
		return nil, fmt.Errorf("name of the %s: %w", u.label(), err)
	}
	if problems := validation.IsDNS1123Subdomain(resolvedName); len(problems) > 0 {
		return nil, fmt.Errorf("name of the %s: %q (from %q): %s", u.label(), resolvedName, name, strings.Join(problems, "; "))
	}
	return &corev1.SecretReference{Name: resolvedName, Namespace: resolvedNamespace}, nil
}

// templates returns the two parameters of a secret, from the current or the deprecated keys. A
// missing or empty one is an error, and so is using both sets of keys.
func (u Use) templates(class map[string]string) (name, namespace string, err error) {
	key, keyNamespace := u.Keys()
	pairs := [][2]string{{key, keyNamespace}}
	if u.deprecatedKey != "" {
		pairs = append(pairs, [2]string{u.deprecatedKey + "Name", u.deprecatedKey + "Namespace"})
	}
	pairs = slices.DeleteFunc(pairs, func(p [2]string) bool {
		_, hasName := class[p[0]]
		_, hasNamespace := class[p[1]]
		return !hasName && !hasNamespace
	})
	switch len(pairs) {
	case 0:
		return "", "", nil
	case 1:
		name, namespace = class[pairs[0][0]], class[pairs[0][1]]
	default:
		return "", "", fmt.Errorf("the class names the %s with current and with deprecated parameters", u.label())
	}
	if name == "" || namespace == "" {
		return "", "", fmt.Errorf("the class must set both %s and %s, and neither may be empty", pairs[0][0], pairs[0][1])
	}
	return name, namespace, nil
}

func (u Use) label() string { return strings.ReplaceAll(u.key, "-", " ") }

var tokenPattern = regexp.MustCompile(`\$\{[^}]*\}`)

// expand replaces each ${TOKEN} with its value. An unknown token is an error.
func expand(template string, tokens map[string]string) (string, error) {
	var unknown []string
	text := tokenPattern.ReplaceAllStringFunc(template, func(match string) string {
		value, ok := tokens[match[2:len(match)-1]]
		if !ok {
			unknown = append(unknown, match)
		}
		return value
	})
	if len(unknown) > 0 {
		return "", fmt.Errorf("%q has unknown tokens: %s", template, strings.Join(unknown, ", "))
	}
	return text, nil
}
