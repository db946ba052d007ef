package install

import (
	"encoding/json"
	"fmt"
	"maps"
	"slices"
	"strconv"
	"strings"
)

// clone copies tables. Values are never changed in place.
func clone(t table) table {
	out := make(table, len(t))
	for key, value := range t {
		if inner, ok := value.(table); ok {
			value = clone(inner)
		}
		out[key] = value
	}
	return out
}

// put sets a key, and makes the tables above it.
func put(t table, path []string, value any) {
	for _, key := range path[:len(path)-1] {
		inner, ok := t[key].(table)
		if !ok {
			inner = table{}
			t[key] = inner
		}
		t = inner
	}
	t[path[len(path)-1]] = value
}

// at returns what is at a path, or nil.
func at(t table, path ...string) any {
	var value any = t
	for _, key := range path {
		inner, ok := value.(table)
		if !ok {
			return nil
		}
		value = inner[key]
	}
	return value
}

func tableAt(t table, path ...string) table {
	found, _ := at(t, path...).(table)
	return found
}

func stringAt(t table, path ...string) string {
	found, _ := at(t, path...).(string)
	return found
}

func listAt(t table, path ...string) []any {
	found, _ := at(t, path...).([]any)
	return found
}

// flatten returns the settings that make a table, sorted: keys before tables.
func flatten(path []string, t table) []setting {
	var own, inner []setting
	for _, key := range slices.Sorted(maps.Keys(t)) {
		below := slices.Concat(path, []string{key})
		if nested, ok := t[key].(table); ok {
			inner = append(inner, flatten(below, nested)...)
			continue
		}
		own = append(own, setting{below, t[key]})
	}
	return append(own, inner...)
}

// dotted writes a key in the form of TOML.
func dotted(path []string) string {
	parts := make([]string, len(path))
	for i, part := range path {
		parts[i] = part
		if part == "" || strings.Trim(part, "abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789_-") != "" {
			parts[i] = quote(part)
		}
	}
	return strings.Join(parts, ".")
}

// quote writes a string in the form of TOML. The escapes of JSON are those of TOML.
func quote(s string) string {
	if !strings.ContainsFunc(s, func(r rune) bool { return r == '\'' || r < ' ' || r == 0x7f || r == '\ufffd' }) {
		return "'" + s + "'"
	}
	out, err := json.Marshal(s)
	if err != nil {
		panic(err) // A string can always be marshaled.
	}
	return strings.ReplaceAll(string(out), "\x7f", `\u007f`)
}

func literal(value any) (string, error) {
	switch v := value.(type) {
	case string:
		return quote(v), nil
	case bool:
		return strconv.FormatBool(v), nil
	case int64:
		return strconv.FormatInt(v, 10), nil
	case float64:
		out := strconv.FormatFloat(v, 'f', -1, 64)
		if !strings.Contains(out, ".") {
			out += ".0"
		}
		return out, nil
	case []any:
		all := make([]string, len(v))
		for i, element := range v {
			var err error
			if all[i], err = literal(element); err != nil {
				return "", err
			}
		}
		return "[" + strings.Join(all, ", ") + "]", nil
	default:
		return "", fmt.Errorf("a value of the type %T cannot be copied", value)
	}
}
