package main

import "testing"

// TestSSHNames: host names of SSH and names of leases stand for each other.
func TestSSHNames(t *testing.T) {
	for name, host := range map[string]string{"0a1b2c3d": "0a1b2c3d.pktcloud", "shop/db": "db.shop.pktcloud"} {
		if got := sshHost(name); got != host {
			t.Errorf("%s is the host %s, want %s", name, got, host)
		}
		if got := sshName(host); got != name {
			t.Errorf("%s is the lease %s, want %s", host, got, name)
		}
	}
	if got := sshName("shop/db"); got != "shop/db" {
		t.Errorf("got %s", got)
	}
}

// TestSSHQuote: a path is one word for the shell and for SSH.
func TestSSHQuote(t *testing.T) {
	for path, want := range map[string]string{
		"/home/ann/.pktcloud": "/home/ann/.pktcloud",
		"/home/ann's dir":     `'/home/ann'\''s dir'`,
		"/50%":                "'/50%%'",
		"/a;b$(c)":            "'/a;b$(c)'",
	} {
		if got := sshQuote(path); got != want {
			t.Errorf("%s: got %s, want %s", path, got, want)
		}
	}
}
