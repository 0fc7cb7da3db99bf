package image

import (
	"errors"
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"

	"github.com/pkt-cash/pkt-cloud/container"
)

// TestRedirects judges redirects before anything is asked there.
func TestRedirects(t *testing.T) {
	request := func(url string) *http.Request { return httptest.NewRequest(http.MethodGet, url, http.NoBody) }
	for _, c := range []struct {
		name, from, to string
		after          int
		want           container.Code
	}{
		{"to an encrypted address", "http://a", "https://b", 1, ""},
		{"to another encrypted one", "https://a", "https://b", 1, ""},
		{"to an unencrypted one", "https://a", "http://b", 1, container.CodeForbiddenHost},
		{"the last", "https://a", "https://b", maxRedirects, ""},
		{"too many", "https://a", "https://b", maxRedirects + 1, container.CodeRegistry},
	} {
		var via []*http.Request
		for range c.after {
			via = append(via, request(c.from))
		}
		if err := checkRedirect(request(c.to), via); c.want == "" && err != nil || c.want != "" && !errors.Is(err, c.want) {
			t.Errorf("%s: got %v, want %q", c.name, err, string(c.want))
		}
	}
}

// TestErrorsKeepSecrets shows that an error does not tell what a registry signed
// for one caller.
func TestErrorsKeepSecrets(t *testing.T) {
	f := newFront(t)
	img := testImage(t)
	push(t, f.addr+"/app:1", img)
	m, _ := img.Manifest()
	f.set(func(w http.ResponseWriter, r *http.Request) bool {
		if isBlob(r, m.Layers[0].Digest) {
			http.Redirect(w, r, "http://10.0.0.1/x?signature=s3cret", http.StatusFound)
			return true
		}
		return false
	})
	s := openStore(t, Config{Dial: f.dialer.DialContext})
	_, err := s.Pull(t.Context(), f.addr+"/app:1", container.PullOptions{})
	if err == nil || strings.Contains(err.Error(), "s3cret") || !strings.Contains(err.Error(), "10.0.0.1") {
		t.Errorf("got %v, want the address without the signature", err)
	}
}
