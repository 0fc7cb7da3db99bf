// Package api serves a node over HTTP: the API under /api/v1 with its OpenAPI
// description at /api/openapi.json, the login of browsers, and the local proxy
// that opens running leases.
//
// Start with [New] and [Guard]. The package decides who may ask, never what
// the answer is: that is package service. It is described in spec/api.md.
package api
