package web_test

import (
	"net/http"
	"net/url"
	"slices"
	"strings"
	"testing"

	"github.com/pkt-cash/pkt-cloud/lease"
	"github.com/pkt-cash/pkt-cloud/market"
	"github.com/pkt-cash/pkt-cloud/node/service"
	"github.com/pkt-cash/pkt-cloud/node/service/servicetest"
)

// offersOf returns the twin's offer that has egress and volumes, and the one
// that has ports and neither.
func offersOf(t *testing.T, twin *servicetest.Twin) (open, closed string) {
	t.Helper()
	page, err := twin.Offers(t.Context(), service.OfferQuery{})
	if err != nil {
		t.Fatal(err)
	}
	for _, o := range page.Offers {
		if o.Body.Network.Egress && o.Body.Volumes {
			open = o.ID.String()
		} else if o.Body.Network.Ports > 0 && !o.Body.Volumes {
			closed = o.ID.String()
		}
	}
	if open == "" || closed == "" {
		t.Fatalf("the twin's offers are %+v", page.Offers)
	}
	return open, closed
}

// TestDeployNetwork: what the form says of network and volumes is what is asked
// for, and what it costs.
func TestDeployNetwork(t *testing.T) {
	twin, s := newWeb(t)
	open, closed := offersOf(t, twin)
	for _, c := range []struct {
		name, offer string
		set         url.Values
		want        service.LeaseRequest
	}{
		{"nothing", open, nil, service.LeaseRequest{}},
		{"the internet", open, url.Values{"egress": {"public"}, "bandwidth": {"0.5"}}, service.LeaseRequest{Egress: []string{"public"}, Bandwidth: 1 << 19}},
		{
			"places", open,
			url.Values{"egress": {"places"}, "allow": {" example.org:443,  192.0.2.0/24:*\n"}},
			service.LeaseRequest{Egress: []string{"example.org:443", "192.0.2.0/24:*"}},
		},
		{"ports", closed, url.Values{"publish": {"8080, 53/udp"}}, service.LeaseRequest{Publish: []string{"8080", "53/udp"}}},
		{
			"volumes", open,
			url.Values{"volume1": {"data"}, "size1": {"2"}, "path1": {"/var/lib/db"}, "volume3": {"logs"}, "size3": {"0,3"}, "path3": {"/logs"}},
			service.LeaseRequest{Volumes: []service.VolumeRequest{{Name: "data", Path: "/var/lib/db", Size: 2 << 30}, {Name: "logs", Path: "/logs", Size: 308 << 20}}},
		},
	} {
		before := len(twin.Requests())
		status, body := deploy(t, s, c.offer, func(v url.Values) {
			for k := range c.set {
				v.Set(k, c.set.Get(k))
			}
		})
		got := twin.Requests()
		if status != http.StatusOK || len(got) != before+1 {
			t.Errorf("%s: got %d\n%s", c.name, status, body)
			continue
		}
		r := got[before]
		if !slices.Equal(r.Egress, c.want.Egress) || !slices.Equal(r.Publish, c.want.Publish) || !slices.Equal(r.Volumes, c.want.Volumes) || r.Bandwidth != c.want.Bandwidth {
			t.Errorf("%s: got %+v, want %+v", c.name, r, c.want)
		}
	}
	base := "/deploy/price?cores=1&memory=512&disk=1&max=1&term=24&interval=10&offer=" + open
	_, plain, _ := get(t, s.URL+base)
	_, more, _ := get(t, s.URL+base+"&volume1=data&size1=2&path1=/data")
	if !strings.Contains(plain, "1 GiB disk") || !strings.Contains(more, "3 GiB disk with volumes") || plain == more {
		t.Errorf("the price is not that of the volumes too:\n%s\n%s", plain, more)
	}
	if _, body, _ := get(t, s.URL+base+"&volume1=data&size1=2000&path1=/data"); !strings.Contains(body, "More than this offer has: 100 GiB of disk free.") {
		t.Errorf("a volume larger than the offer's disk:\n%s", body)
	}
}

// TestDeployNetworkErrors: what is wrong with network and volumes is said at its
// field, nothing is agreed and nothing lost.
func TestDeployNetworkErrors(t *testing.T) {
	twin, s := newWeb(t)
	open, closed := offersOf(t, twin)
	for _, c := range []struct {
		name, offer, field, want string
		set                      url.Values
	}{
		{"no place", open, "allow", "Say to which places", url.Values{"egress": {"places"}}},
		{"a place without the choice", open, "allow", "only places that I list", url.Values{"egress": {"public"}, "allow": {"example.org:443"}}},
		{"no place of the net", open, "allow", "Egress &#34;example.org&#34;", url.Values{"egress": {"places"}, "allow": {"example.org"}}},
		{"a choice that is none", open, "egress", "Choose one of these", url.Values{"egress": {"all"}}},
		{"no egress in the offer", closed, "egress", "connect to nothing outside", url.Values{"egress": {"public"}}},
		{"no port", closed, "publish", "is no port of the service", url.Values{"publish": {"http"}}},
		{"a port outside", closed, "publish", "the provider chooses that", url.Values{"publish": {"80:8080"}}},
		{"no ports in the offer", open, "publish", "publishes no ports", url.Values{"publish": {"8080"}}},
		{"too many ports", closed, "publish", "has 10 ports", url.Values{"publish": {"1 2 3 4 5 6 7 8 9 10 11"}}},
		{"a bandwidth of nothing", open, "bandwidth", "bounds nothing", url.Values{"bandwidth": {"1"}}},
		{"no number", open, "bandwidth", "is a number from 0", url.Values{"egress": {"public"}, "bandwidth": {"fast"}}},
		{"a name", open, "volume1", "A name is 1 to 32", url.Values{"volume1": {"My Data"}, "size1": {"1"}, "path1": {"/data"}}},
		{"no name", open, "volume2", "A name is 1 to 32", url.Values{"size2": {"1"}, "path2": {"/data"}}},
		{"two names", open, "volume2", "Another volume", url.Values{"volume1": {"a"}, "size1": {"1"}, "path1": {"/a"}, "volume2": {"a"}, "size2": {"1"}, "path2": {"/b"}}},
		{"a size", open, "size1", "is a number from 0", url.Values{"volume1": {"data"}, "size1": {"big"}, "path1": {"/data"}}},
		{"a small size", open, "size1", "at least 0.3 GiB", url.Values{"volume1": {"data"}, "size1": {"0.1"}, "path1": {"/data"}}},
		{"a path", open, "path1", "No volume may be at", url.Values{"volume1": {"data"}, "size1": {"1"}, "path1": {"/proc/data"}}},
		{"no path", open, "path1", "such as /var/lib/app", url.Values{"volume1": {"data"}, "size1": {"1"}}},
		{"within another", open, "path3", "one is within the other", url.Values{"volume1": {"a"}, "size1": {"1"}, "path1": {"/a"}, "volume3": {"b"}, "size3": {"1"}, "path3": {"/a/b"}}},
		{"no volumes in the offer", closed, "volume1", "This offer has no volumes", url.Values{"volume1": {"data"}, "size1": {"1"}, "path1": {"/data"}}},
	} {
		status, body := deploy(t, s, c.offer, func(v url.Values) {
			for k := range c.set {
				v.Set(k, c.set.Get(k))
			}
		})
		if status != http.StatusUnprocessableEntity || !strings.Contains(body, c.want) {
			t.Errorf("%s: got %d, want %q in\n%s", c.name, status, c.want, body)
		}
		i := strings.Index(body, `id="`+c.field+`"`)
		if i < 0 || strings.Count(body, `id="why"`) != 1 {
			t.Errorf("%s: field %s is not there, or not the only one with a fault:\n%s", c.name, c.field, body)
			continue
		}
		if end := strings.Index(body[i:], `id="why"`); end < 0 || strings.Contains(body[i+1:i+end], "<input") && c.field != "egress" || !strings.Contains(body[i:i+end], `aria-invalid="true"`) {
			t.Errorf("%s: the fault does not stand at %s:\n%s", c.name, c.field, body)
		}
		for k := range c.set {
			if k != "egress" && !strings.Contains(body, `value="`+c.set.Get(k)+`"`) {
				t.Errorf("%s: what was typed as %s is lost", c.name, k)
			}
		}
	}
	if r := twin.Requests(); len(r) != 0 {
		t.Errorf("got %+v agreed", r)
	}
	for name, c := range map[string]struct {
		offer  string
		has    []string
		hasNot []string
	}{
		"open":   {open, []string{"the whole internet", `id="volume1"`, `id="allow"`}, []string{`id="publish"`}},
		"closed": {closed, []string{"connect to nothing outside", "This offer has no volumes", `id="publish"`}, []string{`id="volume1"`, `id="allow"`, "the whole internet"}},
	} {
		_, body, _ := get(t, s.URL+"/deploy?offer="+c.offer)
		for _, want := range c.has {
			if !strings.Contains(body, want) {
				t.Errorf("%s: %q is missing from\n%s", name, want, body)
			}
		}
		for _, not := range c.hasNot {
			if strings.Contains(body, not) {
				t.Errorf("%s: there is %q, which the offer does not have", name, not)
			}
		}
	}
}

// TestMarketNetwork: each offer says what network and volumes it has, and the
// page finds those that have enough.
func TestMarketNetwork(t *testing.T) {
	twin, s := newWeb(t)
	open, closed := offersOf(t, twin)
	for query, want := range map[string][2]bool{
		"":                       {true, true},
		"?egress=1":              {true, false},
		"?volumes=1":             {true, false},
		"?ports=10":              {false, true},
		"?ports=11":              {false, false},
		"?egress=1&bandwidth=5":  {true, false},
		"?volumes=1&ports=10":    {false, false},
		"?ports=&bandwidth=&f=1": {true, true},
	} {
		_, body, _ := get(t, s.URL+"/market"+query)
		if got := [2]bool{strings.Contains(body, open), strings.Contains(body, closed)}; got != want {
			t.Errorf("%s: got %v, want %v", query, got, want)
		}
	}
	_, body, _ := get(t, s.URL+"/market")
	for _, want := range []string{`data-label="Network, volumes">internet, volumes<`, `data-label="Network, volumes">no connections to outside, 10 ports<`} {
		if !strings.Contains(body, want) {
			t.Errorf("%q is missing from\n%s", want, body)
		}
	}
	if _, body, _ := get(t, s.URL+"/market?egress=1&bandwidth=5"); !strings.Contains(body, "bandwidth=5&amp;egress=public") || !strings.Contains(body, `name="egress" value="1" checked`) {
		t.Errorf("the next page does not know what was asked for:\n%s", body)
	}
	if status, body, _ := get(t, s.URL+"/market?ports=many"); status != http.StatusUnprocessableEntity || !strings.Contains(body, "The number of ports is a number") {
		t.Errorf("got %d\n%s", status, body)
	}
	if uint64(lease.MinVolumeBytes) != 300<<20 || market.MaxPorts < 10 {
		t.Error("the form's texts name other limits")
	}
}

// TestDeployPrivate: the password of a registry goes with the request, and into
// no page and no address.
func TestDeployPrivate(t *testing.T) {
	const password = "pa55-of-the-registry"
	twin, s := newWeb(t)
	open, _ := offersOf(t, twin)
	with := func(set url.Values) (int, string) {
		return deploy(t, s, open, func(v url.Values) {
			for k := range set {
				v.Set(k, set.Get(k))
			}
		})
	}
	for field, set := range map[string]url.Values{
		"registry_password": {"registry_user": {"ann"}},
		"registry_user":     {"registry_password": {password}},
		"term":              {"registry_user": {"ann"}, "registry_password": {password}, "term": {"soon"}},
	} {
		status, body := with(set)
		if status != http.StatusUnprocessableEntity || strings.Contains(body, password) || !strings.Contains(body, `id="why"`) {
			t.Errorf("%s: got %d\n%s", field, status, body)
		}
	}
	status, body := with(url.Values{"registry_user": {"ann"}, "registry_password": {password}})
	r := twin.Requests()
	if status != http.StatusOK || strings.Contains(body, password) || len(r) != 1 || !slices.Equal(r[0].Credentials, []service.RegistryCredential{{Username: "ann", Password: password}}) {
		t.Errorf("got %d, %d requests\n%s", status, len(r), body)
	}
	for _, page := range []string{"/deploy?offer=" + open, "/deploy?several=1&offer=" + open} {
		_, body, _ := get(t, s.URL+page+"&registry_password="+password)
		if !strings.Contains(body, `hx-params="not `) || !strings.Contains(body, "registry_user,registry_password\"") || !strings.Contains(body, `type="password" autocomplete="off"`) || strings.Contains(body, password) {
			t.Errorf("%s sends or shows a password:\n%s", page, body)
		}
	}
}
