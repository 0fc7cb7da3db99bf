package nodetest

import (
	"bytes"
	"context"
	"crypto/tls"
	"crypto/x509"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/http"
	"net/url"
	"os"
	"slices"

	"github.com/pkt-cash/pkt-cloud/settle/pktd"
)

const (
	// Env is the environment variable with the address of a real node, as in
	// https://user:password@host:port.
	Env = "PKTD_RPC"
	// CertEnv is the one with the file of that node's certificate, if it is one
	// of its own.
	CertEnv = "PKTD_CERT"
)

// Named returns how to reach the node that PKTD_RPC names, if it names one.
func Named() (cfg pktd.Config, ok bool, err error) {
	address := os.Getenv(Env)
	if address == "" {
		return pktd.Config{}, false, nil
	}
	u, err := url.Parse(address)
	if err != nil {
		return pktd.Config{}, false, fmt.Errorf("%s is no address: want http://user:password@host:port", Env) // the error would show the password
	}
	password, _ := u.User.Password()
	cfg = pktd.Config{User: u.User.Username(), Password: password, CertFile: os.Getenv(CertEnv), PollInterval: pollIntervalNamed}
	u.User = nil
	cfg.URL = u.String()
	return cfg, true, nil
}

// useNamed takes the node that PKTD_RPC names, if blocks can be made there at
// will: on a network of value a test only reads.
func (n *Node) useNamed(ctx context.Context) (bool, error) {
	cfg, ok, err := Named()
	if err != nil || !ok {
		return false, err
	}
	there := &Node{cfg: cfg, http: http.DefaultClient}
	if cfg.CertFile != "" {
		pem, err := os.ReadFile(cfg.CertFile)
		if err != nil {
			return false, err
		}
		pool := x509.NewCertPool()
		pool.AppendCertsFromPEM(pem)
		there.http = &http.Client{Transport: &http.Transport{TLSClientConfig: &tls.Config{RootCAs: pool, MinVersion: tls.VersionTLS12}}}
	}
	var magic uint32
	if err := there.call(ctx, &magic, "getcurrentnet"); err != nil {
		return false, fmt.Errorf("the node of %s: %w", Env, err)
	}
	if magic != n.Network.Magic {
		return false, nil
	}
	n.cfg, n.http = cfg, there.http
	n.cfg.Magic = magic
	return true, nil
}

// refusal is the error object of a node's answer.
type refusal struct {
	Code    int    `json:"code"`
	Message string `json:"message"`
}

func (r *refusal) Error() string { return fmt.Sprintf("node says %d: %s", r.Code, r.Message) }

func refused(err error, codes ...int) bool {
	r, ok := errors.AsType[*refusal](err)
	return ok && slices.Contains(codes, r.Code)
}

// call asks the node what the driver has no use for. result may be nil.
func (n *Node) call(ctx context.Context, result any, method string, params ...any) error {
	if params == nil {
		params = []any{}
	}
	body, err := json.Marshal(map[string]any{"jsonrpc": "1.0", "id": 1, "method": method, "params": params})
	if err != nil {
		return err
	}
	req, err := http.NewRequestWithContext(ctx, http.MethodPost, n.cfg.URL, bytes.NewReader(body))
	if err != nil {
		return err
	}
	req.SetBasicAuth(n.cfg.User, n.cfg.Password)
	resp, err := n.http.Do(req)
	if err != nil {
		return err
	}
	defer resp.Body.Close()
	if resp.StatusCode == http.StatusUnauthorized {
		return errors.New("the node refuses this user and password")
	}
	var reply struct {
		Result json.RawMessage `json:"result"`
		Error  *refusal        `json:"error"`
	}
	if err := json.NewDecoder(io.LimitReader(resp.Body, pktd.MaxReplyBytes)).Decode(&reply); err != nil {
		return fmt.Errorf("%s: %w", method, err)
	}
	if reply.Error != nil {
		return fmt.Errorf("%s: %w", method, reply.Error)
	}
	if result == nil {
		return nil
	}
	return json.Unmarshal(reply.Result, result)
}
