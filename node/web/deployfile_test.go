package web_test

import (
	"bytes"
	"io"
	"mime/multipart"
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"

	"github.com/pkt-cash/pkt-cloud/lease/manifest"
)

// postFile sends a form of several services as a browser does.
func postFile(t *testing.T, s *httptest.Server, path, offer, upload string, fields ...string) (int, string) {
	t.Helper()
	var b bytes.Buffer
	w := multipart.NewWriter(&b)
	values := map[string]string{"offer": offer, "several": "1", "max": "1", "term": "1", "interval": "1", "credit": "2", "prepaid": "1"}
	for i := 0; i < len(fields); i += 2 {
		values[fields[i]] = fields[i+1]
	}
	for k, v := range values {
		if err := w.WriteField(k, v); err != nil {
			t.Fatal(err)
		}
	}
	part, err := w.CreateFormFile("upload", "shop.yaml") // an empty one, when nobody chose any
	if err == nil {
		_, err = io.WriteString(part, upload)
	}
	if err != nil || w.Close() != nil {
		t.Fatal(err)
	}
	r, err := http.NewRequestWithContext(t.Context(), http.MethodPost, s.URL+path, &b)
	if err != nil {
		t.Fatal(err)
	}
	r.Header.Set("Content-Type", w.FormDataContentType())
	if values["part"] != "" {
		r.Header.Set("HX-Request", "true")
	}
	answer, err := http.DefaultClient.Do(r)
	if err != nil {
		t.Fatal(err)
	}
	defer answer.Body.Close()
	body, err := io.ReadAll(answer.Body)
	if err != nil {
		t.Fatal(err)
	}
	return answer.StatusCode, string(body)
}

const shopFile = "\nvolumes: {data: 1GiB}\nservices:\n  web:\n    image: example.org/shop:3\n    cpu: 0.25\n    depends: {db: healthy}\n    ports: [8080]\n    publish: [8080]\n    egress: [\"example.org:443\"]\n  db:\n    image: example.org/db:1\n    health: {tcp: 5432}\n    mounts: [\"data:/var/lib/db\"]\n"

// TestDeploySeveral: a file is shown with what it means and costs before
// anything is agreed, and what is agreed is what was shown.
func TestDeploySeveral(t *testing.T) {
	twin, s := newWeb(t)
	id := offerID(t, twin)
	if status, body, _ := get(t, s.URL+"/deploy?several=1&offer="+id); status != http.StatusOK || !strings.Contains(body, `<textarea id="file"`) || strings.Contains(body, `name="image"`) || strings.Contains(body, `class="wrong"`) {
		t.Errorf("got %d\n%s", status, body)
	}
	crlf := strings.ReplaceAll(shopFile, "\n", "\r\n") // as browsers send it
	for name, c := range map[string]struct{ upload, file, part string }{
		"typed": {"", crlf, ""}, "uploaded": {shopFile, "what stood there", ""}, "while it is typed": {"", crlf, "1"},
	} {
		status, body := postFile(t, s, "/deploy/preview", id, c.upload, "file", c.file, "max", "", "part", c.part)
		for _, want := range []string{"<code>web</code>", "<code>db</code>", "waits for db (healthy)", "health by tcp", "connects to example.org:443", "port 8080/tcp published", "volume data at /var/lib/db", "0.25 cores", "Together 0.75 cores, 512 MiB memory, 3 GiB disk", "per hour"} {
			if status != http.StatusOK || !strings.Contains(body, want) {
				t.Errorf("%s: got %d and not %q in\n%s", name, status, want, body)
			}
		}
		if c.part == "" && (!strings.Contains(body, "example.org/shop:3\r\n") && !strings.Contains(body, "example.org/shop:3\n") || !strings.Contains(body, "autocapitalize=\"off\" spellcheck=\"false\" aria-describedby=\"fault file-hint\">\n\r\nvolumes:") && !strings.Contains(body, "aria-describedby=\"fault file-hint\">\n\nvolumes:")) {
			t.Errorf("%s: the file is not there as it was typed:\n%s", name, body)
		}
	}
	if r := twin.Requests(); len(r) != 0 {
		t.Fatalf("a preview agreed %+v", r)
	}
	if status, body := postFile(t, s, "/deploy", id, "", "file", crlf); status != http.StatusOK || !strings.Contains(body, "Close this lease") {
		t.Fatalf("got %d\n%s", status, body)
	}
	want, err := manifest.Read([]byte(shopFile))
	if err != nil {
		t.Fatal(err)
	}
	r := twin.Requests()
	if len(r) != 1 || r[0].Manifest == nil || len(r[0].Manifest.Services) != len(want.Services) || r[0].Manifest.Resources() != want.Resources() {
		t.Errorf("got %+v, want the file's services", r)
	}
}

const composeFile = `services:
  web:
    image: example.org/shop:3
    command: [serve]
    depends_on: {db: {condition: service_healthy}}
    ports: ["80:8080"]
    restart: always
    environment: {DB: "postgres://app:${PASSWORD}@db"}
    deploy: {resources: {limits: {cpus: "0.25", memory: 128M}}}
  db:
    image: postgres:17
    restart: always
    cap_drop: [ALL]
    healthcheck: {test: pg_isready}
    volumes: ["db_data:/var/lib/postgresql/data"]
volumes: {db_data: {x-pktcloud: {size: 2GiB}}}
`

// TestDeployCompose: a file of Compose is shown as what it becomes, with what is
// not quite as it was and what it costs, before anything is agreed; all that cannot
// be had is said at its lines.
func TestDeployCompose(t *testing.T) {
	twin, s := newWeb(t)
	id := offerID(t, twin)
	status, body := postFile(t, s, "/deploy/preview", id, composeFile, "variables", "PASSWORD=a\r\n")
	for _, want := range []string{
		"<code>web</code>", "waits for db (healthy)", "port 8080/tcp published", "volume db-data at /var/lib/postgresql/data", "Not quite as in the file",
		"Line 13, <code>db</code>: &#34;cap_drop&#34; is left out", "Line 10, <code>db</code>: it gets 0.5 cores and 256 MiB of memory", "no service connects to anything outside", "per hour", "PASSWORD=a",
	} {
		if status != http.StatusOK || !strings.Contains(body, want) {
			t.Errorf("got %d and not %q in\n%s", status, want, body)
		}
	}
	if status, body := postFile(t, s, "/deploy/preview", id, composeFile, "variables", "PASSWORD=a", "outside", "1", "part", "1"); !strings.Contains(body, "connects to public") || strings.Contains(body, "no service connects") {
		t.Errorf("got %d\n%s", status, body)
	}
	bad := strings.Replace(composeFile, "    cap_drop: [ALL]\n", "    cap_add: [ALL]\n    env_file: /etc/<passwd>\n", 1)
	for variables, want := range map[string][]string{
		"PASSWORD=a":   {"Line 13: Service &#34;db&#34;: cap_add cannot be had here", `<span class="here"><b>13</b>     cap_add`, "Line 14: Service &#34;db&#34;: env_file cannot be had here"},
		"":             {"Line 8: The variable PASSWORD has no value"},
		"A=b\nnot one": {"Line 2: In the variables: This is not NAME=VALUE"},
	} {
		status, body := postFile(t, s, "/deploy", id, "", "file", bad, "variables", variables)
		for _, w := range want {
			if status != http.StatusUnprocessableEntity || !strings.Contains(body, w) {
				t.Errorf("%q: got %d and not %q in\n%s", variables, status, w, body)
			}
		}
	}
	if r := twin.Requests(); len(r) != 0 {
		t.Fatalf("got %+v agreed", r)
	}
	if status, body := postFile(t, s, "/deploy", id, composeFile, "variables", "PASSWORD=a", "max", "1000"); status != http.StatusOK && status != http.StatusSeeOther {
		t.Fatalf("got %d\n%s", status, body)
	}
	r := twin.Requests()
	if len(r) != 1 || r[0].Manifest == nil || len(r[0].Manifest.Services) != 2 || !r[0].Manifest.Services[0].Entrypoint || r[0].Manifest.Services[0].Env[0] != "DB=postgres://app:a@db" {
		t.Errorf("got %+v", r)
	}
}

// TestFileErrors: what is wrong with a file is said at its line, nothing is
// agreed, and nothing that was typed is lost.
func TestFileErrors(t *testing.T) {
	twin, s := newWeb(t)
	id := offerID(t, twin)
	for _, c := range []struct{ name, file, want string }{
		{"a bad size", shopFile + "    memory: <much>\n", "Line 15: Service &#34;db&#34;: &#34;&lt;much&gt;&#34; is no size, such as 256MiB or 2GiB."},
		{"an unknown word", shopFile + "    privileged: true\n", "Line 15: Service &#34;db&#34;: there is no word &#34;privileged&#34; here."},
		{"no YAML", shopFile + "    user: [\n", "Line 15: "},
		{"a circle", shopFile + "    depends: [web]\n", "Line 7: "},
		{"nothing", "  \n", "Say what runs"},
		{"no services", "probe: web", "names each service"},
	} {
		for _, part := range []string{"", "1"} {
			path := "/deploy"
			if part != "" {
				path = "/deploy/preview"
			}
			status, body := postFile(t, s, path, id, "", "file", c.file, "part", part, "term", "7")
			if part == "" && status != http.StatusUnprocessableEntity || c.name != "nothing" && !strings.Contains(body, c.want) || part == "" && !strings.Contains(body, c.want) {
				t.Errorf("%s: got %d, want %q in\n%s", c.name, status, c.want, body)
			}
			if strings.Contains(c.want, "15: Service") && !strings.Contains(body, `<span class="here"><b>15</b>     `) {
				t.Errorf("%s: the line is not shown", c.name)
			}
			if part == "" && (!strings.Contains(body, `value="7"`) || c.name != "nothing" && !strings.Contains(body, "shop") && c.name != "no services") {
				t.Errorf("%s: what was typed is lost", c.name)
			}
			if strings.Contains(body, "lease:") || strings.Contains(body, "yaml:") {
				t.Errorf("%s: names of the program are shown", c.name)
			}
		}
	}
	long := "# " + strings.Repeat("x", manifest.MaxFileBytes)
	for _, upload := range []string{"", long} {
		if status, body := postFile(t, s, "/deploy/preview", id, upload, "file", long); status == http.StatusOK && !strings.Contains(body, "bytes") || status != http.StatusOK && !strings.Contains(body, "at most 256 KiB") {
			t.Errorf("got %d of a file that is too long", status)
		}
	}
	if status, body := postFile(t, s, "/deploy/preview", id, "", "file", strings.Replace(shopFile, "0.25", "250", 1)); status != http.StatusOK || !strings.Contains(body, "More than this offer has: 4 cores free.") {
		t.Errorf("got %d, want what the offer does not have\n%s", status, body)
	}
	if r := twin.Requests(); len(r) != 0 {
		t.Errorf("got %+v agreed", r)
	}
}
