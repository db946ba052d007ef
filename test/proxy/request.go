package proxy

import (
	"net/http"
	"strings"
)

// Name tells what a request asks for: the method and the resource with its
// subresource, as in "PATCH persistentvolumeclaims/status". What is not about a
// resource goes by its path.
func Name(r *http.Request) string {
	resource, subresource := parsePath(r.URL.Path)
	if resource == "" {
		return r.Method + " " + r.URL.Path
	}
	return r.Method + " " + strings.TrimSuffix(resource+"/"+subresource, "/")
}

// Resource is the resource that a request is about, as in "persistentvolumes";
// empty for none.
func Resource(r *http.Request) string {
	resource, _ := parsePath(r.URL.Path)
	return resource
}

// IsWatch tells whether a request is for what changes from now on.
func IsWatch(r *http.Request) bool { return r.URL.Query().Get("watch") == "true" }

// IsWrite tells whether a request changes a resource. An event does not count:
// it is sent in the background, nothing depends on it, and how many there are
// depends on the time that things take.
func IsWrite(r *http.Request) bool {
	resource := Resource(r)
	reads := r.Method == http.MethodGet || r.Method == http.MethodHead
	return !reads && resource != "" && resource != "events"
}

// parsePath takes a path of the API apart.
func parsePath(path string) (resource, subresource string) {
	parts := strings.Split(strings.Trim(path, "/"), "/")
	var rest []string
	switch parts[0] {
	case "api": // api/VERSION/...
		rest = parts[min(2, len(parts)):]
	case "apis": // apis/GROUP/VERSION/...
		rest = parts[min(3, len(parts)):]
	}
	if len(rest) > 2 && rest[0] == "namespaces" {
		rest = rest[2:]
	}
	rest = append(rest[:len(rest):len(rest)], "", "", "") // RESOURCE/NAME/SUBRESOURCE, as far as it goes
	return rest[0], rest[2]
}
