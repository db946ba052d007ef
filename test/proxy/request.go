package proxy

import (
	"net/http"
	"strings"
)

// Name returns the method of a request and its resource with the subresource, as in
// "PATCH persistentvolumeclaims/status". A request for no resource is named by its
// path.
func Name(r *http.Request) string {
	resource, subresource := parsePath(r.URL.Path)
	if resource == "" {
		return r.Method + " " + r.URL.Path
	}
	return r.Method + " " + strings.TrimSuffix(resource+"/"+subresource, "/")
}

// Resource returns the resource of a request, as in "persistentvolumes", or "" for
// none.
func Resource(r *http.Request) string {
	resource, _ := parsePath(r.URL.Path)
	return resource
}

// IsWatch reports whether a request is a watch.
func IsWatch(r *http.Request) bool { return r.URL.Query().Get("watch") == "true" }

// IsWrite reports whether a request changes a resource. Events do not count: they are
// sent in the background, nothing depends on them, and their number depends on timing.
func IsWrite(r *http.Request) bool {
	resource := Resource(r)
	reads := r.Method == http.MethodGet || r.Method == http.MethodHead
	return !reads && resource != "" && resource != "events"
}

// parsePath splits a path of the API.
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
