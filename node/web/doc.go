// Package web shows a node in the browser: the market, the form that rents,
// the lease with its live exposure, and the wallet. The pages are rendered
// here from Go templates; htmx and its extension for server-sent events, both
// pinned and embedded, refresh parts of them. Nothing comes from elsewhere and
// no script is inline, so the content security policy is strict.
//
// Start with [New]. The package checks nobody's right to see a page: the
// server in node/api has done so before.
package web
