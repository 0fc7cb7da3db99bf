// Package reach reads the places that a tenant lets a program connect to:
// "192.0.2.0/24:443", "192.0.2.7:*", "example.org:443", "*.example.org:443".
// Both the leases and the containers speak of them.
package reach

import (
	"errors"
	"net/netip"
	"strconv"
	"strings"
)

// Limits of a place.
const (
	MaxBytes = 300
	maxName  = 253
	maxLabel = 63
)

// Place is where a program may connect.
type Place struct {
	// Net is the prefix, or invalid where a name is allowed.
	Net netip.Prefix
	// Name is in lower case, without a dot at the end; with Below it stands for
	// all names below it, and not for itself.
	Name  string
	Below bool
	// Port is 0 for any.
	Port uint16
}

// ErrPlace is what is wrong with a text that is no place.
var ErrPlace = errors.New("not an IPv4 address, prefix or name, and a port or *, such as example.org:443")

// Parse reads a place. Each has one spelling. Errors are [ErrPlace].
func Parse(s string) (Place, error) {
	i := strings.LastIndexByte(s, ':')
	if i < 0 || len(s) > MaxBytes {
		return Place{}, ErrPlace
	}
	host, port := s[:i], s[i+1:]
	var p Place
	if port != "*" {
		n, err := strconv.ParseUint(port, 10, 16)
		if err != nil || n == 0 || strconv.FormatUint(n, 10) != port {
			return Place{}, ErrPlace
		}
		p.Port = uint16(n)
	}
	if n, err := netip.ParsePrefix(host); err == nil {
		if !n.Addr().Is4() || n != n.Masked() || n.IsSingleIP() || n.String() != host {
			return Place{}, ErrPlace
		}
		p.Net = n
		return p, nil
	}
	if ip, err := netip.ParseAddr(host); err == nil {
		if !ip.Is4() {
			return Place{}, ErrPlace
		}
		p.Net = netip.PrefixFrom(ip, 32)
		return p, nil
	}
	p.Name, p.Below = strings.CutPrefix(host, "*.")
	if !isDomain(p.Name) {
		return Place{}, ErrPlace
	}
	return p, nil
}

// String is the inverse of [Parse].
func (p Place) String() string {
	port := "*"
	if p.Port != 0 {
		port = strconv.Itoa(int(p.Port))
	}
	switch {
	case p.Net.IsValid() && p.Net.IsSingleIP():
		return p.Net.Addr().String() + ":" + port
	case p.Net.IsValid():
		return p.Net.String() + ":" + port
	case p.Below:
		return "*." + p.Name + ":" + port
	default:
		return p.Name + ":" + port
	}
}

// isDomain accepts names of at least one letter, so that no number is one.
func isDomain(s string) bool {
	if len(s) > maxName {
		return false
	}
	for part := range strings.SplitSeq(s, ".") {
		ok := part != "" && len(part) <= maxLabel && part[0] != '-' && part[len(part)-1] != '-'
		if !ok || strings.Trim(part, "abcdefghijklmnopqrstuvwxyz0123456789-") != "" {
			return false
		}
	}
	return strings.ContainsFunc(s, func(r rune) bool { return r >= 'a' && r <= 'z' })
}
