package session

import (
	"context"
	"log/slog"

	"github.com/libp2p/go-libp2p/core/host"
)

// ServerConfig is what a [Server] works with. Host, Workload and Authorizer are
// required.
type ServerConfig struct {
	Host        host.Host
	Workload    Workload
	Authorizer  Authorizer
	MaxSessions int          // at once; zero means DefaultMaxSessions
	Log         *slog.Logger // nil: none
}

// DefaultMaxSessions is the number of sessions at once of a config without one.
const DefaultMaxSessions = 256

// Server serves sessions.
type Server struct{ cfg ServerConfig }

// NewServer returns a server. It serves nothing before Run.
func NewServer(cfg ServerConfig) (*Server, error) { return &Server{cfg: cfg}, nil }

// Run serves until ctx ends and all sessions have ended.
func (s *Server) Run(ctx context.Context) error { return errTodo }
