// Command schema prints what Go reflection knows about every registered API type: JSON names, Go types, omitempty,
// protobuf numbers and patch strategies, and the schema of client-go's apply configurations. It is run by
// ../schema.py, which writes the table that kedge compiles in.
package main

import (
	"encoding/json"
	"os"
	"os/exec"
	"path/filepath"
	"reflect"
	"sort"
	"strings"

	apiext "k8s.io/apiextensions-apiserver/pkg/apis/apiextensions/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/client-go/kubernetes/scheme"
	apireg "k8s.io/kube-aggregator/pkg/apis/apiregistration/v1"
	"sigs.k8s.io/yaml"
)

type Field struct {
	JSON      string `json:"json"`
	Go        string `json:"go"`
	Named     string `json:"named"`
	Type      string `json:"type"`
	Ptr       bool   `json:"ptr,omitempty"`
	OmitEmpty bool   `json:"omitempty,omitempty"`
	OmitZero  bool   `json:"omitzero,omitempty"`
	PB        string `json:"pb,omitempty"`
	Outer     string `json:"outer,omitempty"`
	// Embedded names the Go structs around the field that JSON does not see: "RuleWithOperations.Rule".
	Embedded string `json:"embedded,omitempty"`
	Strategy string `json:"patchStrategy,omitempty"`
	MergeKey string `json:"patchMergeKey,omitempty"`
}

type Out struct {
	Types map[string][]Field  `json:"types"`
	Kinds map[string][]string `json:"kinds"`
	// Apply is the structured-merge-diff schema of the apply configurations.
	Apply json.RawMessage `json:"apply"`
}

// applySchema reads the schema literal out of client-go's internal package.
func applySchema() json.RawMessage {
	dir, err := exec.Command("go", "list", "-m", "-f", "{{.Dir}}", "k8s.io/client-go").Output()
	check(err)
	path := filepath.Join(strings.TrimSpace(string(dir)), "applyconfigurations", "internal", "internal.go")
	source, err := os.ReadFile(path)
	check(err)
	parts := strings.Split(string(source), "`")
	out, err := yaml.YAMLToJSON([]byte(parts[1]))
	check(err)
	return out
}

func check(err error) {
	if err != nil {
		panic(err)
	}
}

func main() {
	sch := runtime.NewScheme()
	_ = scheme.AddToScheme(sch)
	_ = apiext.AddToScheme(sch)
	_ = apireg.AddToScheme(sch)
	_ = metav1.AddMetaToScheme(sch)
	out := Out{Types: map[string][]Field{}, Kinds: map[string][]string{}}
	for gvk, t := range sch.AllKnownTypes() {
		walk(out.Types, t)
		n := name(t)
		out.Kinds[n] = append(out.Kinds[n], strings.Join([]string{gvk.Group, gvk.Version, gvk.Kind}, "/"))
	}
	for _, k := range out.Kinds {
		sort.Strings(k)
	}
	out.Apply = applySchema()
	enc := json.NewEncoder(os.Stdout)
	enc.SetIndent("", " ")
	_ = enc.Encode(out)
}

func name(t reflect.Type) string {
	p := t.PkgPath()
	p = strings.Replace(p, "k8s.io/", "io.k8s.", 1)
	return strings.ReplaceAll(p, "/", ".") + "." + t.Name()
}

var special = map[string]string{
	"io.k8s.apimachinery.pkg.api.resource.Quantity":                                         "quantity",
	"io.k8s.apimachinery.pkg.util.intstr.IntOrString":                                       "intorstring",
	"io.k8s.apimachinery.pkg.apis.meta.v1.Time":                                             "time",
	"io.k8s.apimachinery.pkg.apis.meta.v1.MicroTime":                                        "microtime",
	"io.k8s.apimachinery.pkg.apis.meta.v1.Duration":                                         "duration",
	"io.k8s.apimachinery.pkg.runtime.RawExtension":                                          "raw",
	"io.k8s.apimachinery.pkg.apis.meta.v1.FieldsV1":                                         "fieldsv1",
	"io.k8s.apiextensions-apiserver.pkg.apis.apiextensions.v1.JSON":                         "json",
	"io.k8s.apiextensions-apiserver.pkg.apis.apiextensions.v1.JSONSchemaPropsOrArray":       "json:array",
	"io.k8s.apiextensions-apiserver.pkg.apis.apiextensions.v1.JSONSchemaPropsOrBool":        "json:bool",
	"io.k8s.apiextensions-apiserver.pkg.apis.apiextensions.v1.JSONSchemaPropsOrStringArray": "json:stringarray",
}

func typ(types map[string][]Field, t reflect.Type) string {
	switch t.Kind() {
	case reflect.Pointer:
		return typ(types, t.Elem())
	case reflect.Struct:
		if s, ok := special[name(t)]; ok {
			walk(types, t)
			return s
		}
		walk(types, t)
		return name(t)
	case reflect.Slice:
		if t.Elem().Kind() == reflect.Uint8 {
			return "bytes"
		}
		return "[]" + typ(types, t.Elem())
	case reflect.Map:
		if t.Key().Kind() != reflect.String {
			panic(t.String())
		}
		return "{}" + typ(types, t.Elem())
	case reflect.Interface:
		return "interface"
	}
	return t.Kind().String()
}

func walk(types map[string][]Field, t reflect.Type) {
	for t.Kind() == reflect.Pointer {
		t = t.Elem()
	}
	if t.Kind() != reflect.Struct {
		return
	}
	n := name(t)
	if _, ok := types[n]; ok {
		return
	}
	types[n] = []Field{}
	if _, ok := special[n]; ok && !strings.Contains(n, "apiextensions") {
		return
	}
	types[n] = fields(types, t, "", "")
}

func pb(tag string) string {
	parts := strings.Split(tag, ",")
	if len(parts) < 3 {
		return ""
	}
	return parts[1] + ":" + parts[0] + ":" + parts[2]
}

func fields(types map[string][]Field, t reflect.Type, outer, embedded string) []Field {
	fs := []Field{}
	for i := 0; i < t.NumField(); i++ {
		f := t.Field(i)
		tag := strings.Split(f.Tag.Get("json"), ",")
		if !f.IsExported() || tag[0] == "-" {
			continue
		}
		has := func(o string) bool {
			for _, x := range tag[1:] {
				if x == o {
					return true
				}
			}
			return false
		}
		if tag[0] == "" && (f.Anonymous || has("inline")) {
			o := outer
			if p := pb(f.Tag.Get("protobuf")); p == "" {
				// TypeMeta: travels in the envelope, not in the message.
				o = "-"
			} else {
				if o != "" {
					o += "/"
				}
				o += strings.Split(p, ":")[0]
			}
			ft := f.Type
			for ft.Kind() == reflect.Pointer {
				ft = ft.Elem()
			}
			name := f.Name
			if embedded != "" {
				name = embedded + "." + name
			}
			fs = append(fs, fields(types, ft, o, name)...)
			continue
		}
		j := tag[0]
		if j == "" {
			j = f.Name
		}
		ft := f.Type
		ptr := ft.Kind() == reflect.Pointer
		if ptr {
			ft = ft.Elem()
		}
		number := pb(f.Tag.Get("protobuf"))
		in := outer
		if outer == "-" {
			number, in = "", ""
		}
		fs = append(fs, Field{JSON: j, Go: f.Name, Named: ft.String(), Type: typ(types, f.Type), Ptr: ptr,
			OmitEmpty: has("omitempty"), OmitZero: has("omitzero"), PB: number, Outer: in, Embedded: embedded,
			Strategy: f.Tag.Get("patchStrategy"), MergeKey: f.Tag.Get("patchMergeKey")})
	}
	return fs
}
