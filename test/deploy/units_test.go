package deploy

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"net/url"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"strings"
	"testing"

	"go.yaml.in/yaml/v3"

	"github.com/hubbub-chat/hubbub/internal/config"
)

// TestUnit has systemd check the unit, with a binary that is there.
func TestUnit(t *testing.T) {
	analyze := find(t, "systemd-analyze")
	unit := string(read(t, "../../deploy/systemd/hubbub.service"))
	const binary = "/usr/local/bin/hubbub"
	if !strings.Contains(unit, "ExecStart="+binary+" serve ") {
		t.Fatalf("the unit does not start %s", binary)
	}
	file := filepath.Join(t.TempDir(), "hubbub.service")
	if err := os.WriteFile(file, []byte(strings.ReplaceAll(unit, binary, "/bin/true")), 0o600); err != nil {
		t.Fatal(err)
	}
	out, err := exec.Command(analyze, "verify", "--man=no", file).CombinedOutput()
	for line := range strings.Lines(string(out)) { // units of the machine are none of our business
		if strings.Contains(line, "hubbub.service") {
			t.Errorf("systemd-analyze verify: %s", line)
		}
	}
	if err != nil && len(out) == 0 {
		t.Error(err)
	}
}

// env is the environment of a container in a manifest or a compose file.
type env map[string]string

// configures: the keys are hubbub's, and their values are good.
func configures(t *testing.T, what string, e env) config.Config {
	t.Helper()
	var environ []string
	for k, v := range e {
		environ = append(environ, k+"="+v)
	}
	cfg, err := config.Load(config.Input{Environ: environ})
	if err != nil {
		t.Errorf("%s: %v", what, err)
	}
	return cfg
}

var variable = regexp.MustCompile(`\$\{(\w+):\?\}`)

// TestCompose: the environment of the server in the compose file is a configuration,
// with the values of the example.
func TestCompose(t *testing.T) {
	values := map[string]string{}
	for line := range strings.Lines(string(read(t, "../../deploy/docker/example.env"))) {
		if k, v, ok := strings.Cut(strings.TrimSpace(line), "="); ok && !strings.HasPrefix(k, "#") {
			values[k] = v
		}
	}
	text := variable.ReplaceAllStringFunc(string(read(t, "../../deploy/docker/compose.yaml")), func(m string) string {
		v, ok := values[variable.FindStringSubmatch(m)[1]]
		if !ok {
			t.Errorf("example.env has no %s", m)
		}
		return v
	})
	var compose struct {
		Services map[string]struct {
			Image       string
			Environment env
			Volumes     []string
		}
	}
	if err := yaml.Unmarshal([]byte(text), &compose); err != nil {
		t.Fatal(err)
	}
	e := compose.Services["hubbub"].Environment
	for line := range strings.Lines(string(read(t, "../../deploy/docker/Dockerfile"))) { // what the image sets
		for _, m := range regexp.MustCompile(`(HUBBUB_\w+)=(\S+)`).FindAllStringSubmatch(line, -1) {
			e[m[1]] = m[2]
		}
	}
	cfg := configures(t, "compose.yaml", e)
	if len(cfg.Server.PostgresURLs()) != 1 || !strings.HasPrefix(cfg.Media.Store, "s3://") || cfg.Server.DataDir != "/data" {
		t.Errorf("not PostgreSQL, S3 and a volume: %v, %s, %s", cfg.Server.PostgresURLs(), cfg.Media.Store, cfg.Server.DataDir)
	}
	// The S3 server is the one that the tests of the store of media run.
	s3 := compose.Services["s3"]
	if _, version, ok := strings.Cut(s3.Image, "versitygw:"); !ok || !strings.Contains(string(read(t, "../../.ci/run")), "versitygw@"+version+"\n") {
		t.Errorf("the S3 server %s is not the one of .ci/run", s3.Image)
	}
	if store, err := url.Parse(cfg.Media.Store); err != nil || len(s3.Volumes) != 1 || s3.Volumes[0] != "s3:/data/"+store.Host {
		t.Errorf("the bucket of %s is not the directory of %v: %v", cfg.Media.Store, s3.Volumes, err)
	}
}

// object is a part of a manifest.
type object = map[string]any

func at(o any, path ...string) any {
	for _, p := range path {
		m, ok := o.(object)
		if !ok {
			return nil
		}
		o = m[p]
	}
	return o
}

// helm runs Helm on the chart. Built by go install it knows no version of Kubernetes.
func helm(t *testing.T, program, command string, sets ...string) ([]byte, error) {
	t.Helper()
	args := []string{command}
	if command == "template" {
		args = append(args, "t")
	} else {
		args = append(args, "--strict")
	}
	args = append(args, "../../deploy/helm/hubbub", "--kube-version", "1.31.0")
	for _, s := range sets {
		args = append(args, "--set", s)
	}
	out, err := exec.Command(program, args...).CombinedOutput()
	if err != nil {
		return out, fmt.Errorf("helm %s: %w\n%s", command, err, out)
	}
	return out, nil
}

func manifests(t *testing.T, raw []byte) map[string]object {
	t.Helper()
	out := map[string]object{}
	d := yaml.NewDecoder(bytes.NewReader(raw))
	for {
		var o object
		err := d.Decode(&o)
		if errors.Is(err, io.EOF) {
			return out
		}
		if err != nil {
			t.Fatalf("%v\n%s", err, raw)
		}
		if o != nil {
			out[fmt.Sprint(o["kind"], " ", at(o, "metadata", "name"))] = o
		}
	}
}

func findHelm(t *testing.T) string {
	t.Helper()
	if gobin, err := exec.Command("go", "env", "GOPATH").Output(); err == nil {
		if path := filepath.Join(strings.TrimSpace(string(gobin)), "bin", "helm"); executable(path) {
			return path
		}
	}
	return find(t, "helm")
}

func executable(path string) bool {
	_, err := exec.LookPath(path)
	return err == nil
}

const name = `config.server\.name=chat.example.org`

// TestChart renders the chart for one pod and for several, and reads what a pod
// would be told.
func TestChart(t *testing.T) {
	program := findHelm(t)
	several := []string{
		name, "postgres=true", "existingSecret=keys", "ingress.enabled=true", "ingress.host=chat.example.org", "serviceMonitor.enabled=true",
		"fleets.main.autoscaling.enabled=true", "fleets.main.autoscaling.targetSockets=5000",
	}
	for _, sets := range [][]string{{name}, several} {
		if _, err := helm(t, program, "lint", sets...); err != nil {
			t.Error(err)
		}
	}
	raw, err := helm(t, program, "template", name, `secrets.media\.store_secret_key=s3cret`)
	if err != nil {
		t.Fatal(err)
	}
	one := manifests(t, raw)
	for _, kind := range []string{"HorizontalPodAutoscaler t-main", "PodDisruptionBudget t-main", "Ingress t", "ServiceMonitor t"} {
		if one[kind] != nil {
			t.Errorf("one pod has a %s", kind)
		}
	}
	pod := at(one["StatefulSet t-main"], "spec", "template", "spec")
	e := container(t, pod)
	for k, v := range at(one["Secret t-config"], "stringData").(object) {
		e[k] = v.(string)
	}
	cfg := configures(t, "the chart", e)
	if cfg.Server.Name != "chat.example.org" || cfg.Media.StoreSecretKey.Reveal() != "s3cret" {
		t.Errorf("the pod's configuration: %q", cfg.Server.Name)
	}
	if at(pod, "securityContext", "runAsNonRoot") != true || at(pod, "automountServiceAccountToken") != false {
		t.Errorf("the pod is not restricted: %v", pod)
	}

	if raw, err = helm(t, program, "template", several...); err != nil {
		t.Fatal(err)
	}
	many := manifests(t, raw)
	for _, kind := range []string{"HorizontalPodAutoscaler t-main", "PodDisruptionBudget t-main", "Ingress t", "ServiceMonitor t", "NetworkPolicy t", "Service t", "Service t-nodes"} {
		if many[kind] == nil {
			t.Errorf("several pods have no %s", kind)
		}
	}
	if many["Secret t-config"] != nil || at(many["StatefulSet t-main"], "spec", "replicas") != nil {
		t.Error("the chart makes a secret beside the existing one, or fights with the autoscaler")
	}
	if !bytes.Contains(raw, []byte("name: hubbub_gateway_sockets")) {
		t.Error("it does not scale by sockets")
	}
}

// container checks the probes and returns the environment.
func container(t *testing.T, pod any) env {
	t.Helper()
	list, ok := at(pod, "containers").([]any)
	if !ok || len(list) != 1 {
		t.Fatalf("containers: %v", list)
	}
	for probe, path := range map[string]string{"readinessProbe": "/readyz", "livenessProbe": "/healthz", "startupProbe": "/readyz"} {
		if at(list[0], probe, "httpGet", "path") != path || at(list[0], probe, "httpGet", "port") != "metrics" {
			t.Errorf("%s: %v", probe, at(list[0], probe))
		}
	}
	if at(list[0], "securityContext", "readOnlyRootFilesystem") != true || at(list[0], "securityContext", "allowPrivilegeEscalation") != false {
		t.Errorf("the container is not restricted: %v", at(list[0], "securityContext"))
	}
	e := env{}
	for _, v := range at(list[0], "env").([]any) {
		e[at(v, "name").(string)] = at(v, "value").(string)
	}
	return e
}

// TestChartRefuses: what would lose data or never start is not rendered.
func TestChartRefuses(t *testing.T) {
	program := findHelm(t)
	for want, sets := range map[string][]string{
		"set config.server":             nil,
		"more than one pod needs":       {name, "fleets.main.replicas=2"},
		"more than one fleet needs":     {name, "fleets.edge.replicas=1"},
		"set ingress.host":              {name, "ingress.enabled=true"},
		"fleet main: more than one pod": {name, "fleets.main.autoscaling.enabled=true"},
	} {
		if _, err := helm(t, program, "template", sets...); err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("%v: %v, want %q", sets, err, want)
		}
	}
}
