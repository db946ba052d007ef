// Package secretref resolves the secrets that a class names for CSI calls.
package secretref

import (
	"errors"
	"fmt"
	"regexp"
	"slices"
	"strings"

	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/util/validation"

	"github.com/holdfast-io/holdfast/internal/kube"
)

const (
	suffixName      = "-name"
	suffixNamespace = "-namespace"

	// annotationToken begins the token of an annotation of the claim; the rest is KEY'].
	annotationToken = "pvc.annotations['"
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

// ResolveAll resolves every secret that a class names for a claim's volume. The volume has all
// of them on record, so each must be resolvable when it is created.
func ResolveAll(class map[string]string, claim *corev1.PersistentVolumeClaim, volume string) (map[Use]*corev1.SecretReference, error) {
	tokens := claimTokens(claim, volume)
	refs := map[Use]*corev1.SecretReference{}
	for _, use := range Uses {
		ref, err := use.resolveOrDefault(class, tokens)
		if err != nil {
			return nil, err
		}
		refs[use] = ref
	}
	return refs, nil
}

// ResolveForGone resolves the secret that a class names for the use, for the volume of a claim
// of which only the name is known any more. Secrets for other uses do not matter.
func (u Use) ResolveForGone(class map[string]string, namespace, claim, volume string) (*corev1.SecretReference, error) {
	tokens := claimTokens(&corev1.PersistentVolumeClaim{ObjectMeta: metav1.ObjectMeta{Namespace: namespace, Name: claim}}, volume)
	tokens.gone = true
	return u.resolveOrDefault(class, tokens)
}

func (u Use) resolveOrDefault(class map[string]string, tokens Tokens) (*corev1.SecretReference, error) {
	ref, err := u.Resolve(class, tokens)
	if ref == nil && err == nil && u != Default {
		return Default.Resolve(class, tokens)
	}
	return ref, err
}

// NeedsAnnotations reports whether a class names a secret by an annotation of the claim.
func NeedsAnnotations(class map[string]string) bool {
	for _, value := range class {
		if strings.Contains(value, annotationToken) {
			return true
		}
	}
	return false
}

// Keys returns the parameters of a class that name the secret.
func (u Use) Keys() (name, namespace string) {
	return kube.ReservedParameterPrefix + u.key + suffixName, kube.ReservedParameterPrefix + u.key + suffixNamespace
}

// New returns a use in classes of another kind. The key is the part of the parameters between
// the prefix and -name or -namespace.
func New(key string) Use { return Use{key: key} }

// Tokens are the values of ${TOKEN} in the namespace and in the name of a secret.
type Tokens struct {
	Namespace, Name map[string]string

	claim string // whose annotations are among the values for names; empty for none
	gone  bool   // the claim is gone, and so its annotations are not known
}

func claimTokens(claim *corev1.PersistentVolumeClaim, volume string) Tokens {
	tokens := Tokens{
		Namespace: map[string]string{"pv.name": volume, "pvc.namespace": claim.Namespace},
		Name:      map[string]string{"pv.name": volume, "pvc.namespace": claim.Namespace, "pvc.name": claim.Name},
		claim:     claim.Namespace + "/" + claim.Name,
	}
	for key, value := range claim.Annotations {
		tokens.Name[annotationToken+key+"']"] = value
	}
	return tokens
}

// Resolve returns the secret that a class names for the use, or nil if it names none.
func (u Use) Resolve(class map[string]string, tokens Tokens) (*corev1.SecretReference, error) {
	name, namespace, err := u.templates(class)
	if err != nil || name.key == "" {
		return nil, err
	}
	resolvedNamespace, err := namespace.resolve(tokens.Namespace, validation.IsDNS1123Label)
	if err != nil {
		return nil, fmt.Errorf("namespace of the %s: %w", u.label(), err)
	}
	resolvedName, err := name.resolve(tokens.Name, validation.IsDNS1123Subdomain)
	if err != nil {
		return nil, fmt.Errorf("name of the %s: %w", u.label(), tokens.explain(err))
	}
	return &corev1.SecretReference{Name: resolvedName, Namespace: resolvedNamespace}, nil
}

// templates returns the two parameters of a secret, from the current or the deprecated keys. A
// missing or empty one is an error, and so is using both sets of keys.
func (u Use) templates(class map[string]string) (name, namespace parameter, err error) {
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
		return parameter{}, parameter{}, nil
	case 1:
		name, namespace = parameter{pairs[0][0], class[pairs[0][0]]}, parameter{pairs[0][1], class[pairs[0][1]]}
	default:
		return parameter{}, parameter{}, fmt.Errorf("the class names the %s with current and with deprecated parameters", u.label())
	}
	if name.template == "" || namespace.template == "" {
		return parameter{}, parameter{}, fmt.Errorf("the class must set both %s and %s, and neither may be empty", name.key, namespace.key)
	}
	return name, namespace, nil
}

func (u Use) label() string { return strings.ReplaceAll(u.key, "-", " ") }

// A parameter of a class has the name or the namespace of a secret as a template.
type parameter struct{ key, template string }

var (
	tokenPattern      = regexp.MustCompile(`\$\{[^}]*\}`)
	annotationPattern = regexp.MustCompile(`^\$\{pvc\.annotations\['(.*)'\]\}$`)
)

// resolve replaces each ${TOKEN} with its value and validates the result. An unknown token is an
// [unknownTokenError].
func (p parameter) resolve(tokens map[string]string, validate func(string) []string) (string, error) {
	var unknown []string
	text := tokenPattern.ReplaceAllStringFunc(p.template, func(match string) string {
		value, ok := tokens[match[2:len(match)-1]]
		if !ok {
			unknown = append(unknown, match)
		}
		return value
	})
	if len(unknown) > 0 {
		return "", &unknownTokenError{p, unknown}
	}
	if problems := validate(text); len(problems) > 0 {
		return "", fmt.Errorf("parameter %s: %q (from %q): %s", p.key, text, p.template, strings.Join(problems, "; "))
	}
	return text, nil
}

type unknownTokenError struct {
	in     parameter
	tokens []string
}

func (e *unknownTokenError) Error() string {
	return fmt.Sprintf("parameter %s: %q has unknown tokens: %s", e.in.key, e.in.template, strings.Join(e.tokens, ", "))
}

// explain says of an unknown token which annotation is missing, if that is the reason.
func (t Tokens) explain(err error) error {
	var unknown *unknownTokenError
	if !errors.As(err, &unknown) || t.claim == "" {
		return err
	}
	var missing []string
	for _, token := range unknown.tokens {
		match := annotationPattern.FindStringSubmatch(token)
		if match == nil {
			return err
		}
		missing = append(missing, fmt.Sprintf("%q", match[1]))
	}
	keys := strings.Join(missing, ", ")
	if t.gone {
		return fmt.Errorf("parameter %s: %q refers to annotations of claim %s, which is gone: %s", unknown.in.key, unknown.in.template, t.claim, keys)
	}
	return fmt.Errorf("parameter %s: %q refers to annotations that claim %s does not have: %s", unknown.in.key, unknown.in.template, t.claim, keys)
}
