// Package embed has of etcd's package of this name what Kubernetes' storage tests use. A server that is started here is
// an empty store of kedge, served as etcd by the test binary that KEDGE_FACE names (see ../../run).
package embed

import (
	"bufio"
	"errors"
	"fmt"
	"io"
	"net/url"
	"os"
	"os/exec"
	"strings"
	"sync"
	"time"

	"go.etcd.io/etcd/client/pkg/v3/transport"
	"go.uber.org/zap"
)

const progressInterval = 10 * time.Minute

// Config is what the tests set. Of it count the client's address and the progress interval.
type Config struct {
	Name                        string
	Dir                         string
	InitialCluster              string
	ListenPeerUrls              []url.URL
	AdvertisePeerUrls           []url.URL
	ListenClientUrls            []url.URL
	AdvertiseClientUrls         []url.URL
	ClientTLSInfo               transport.TLSInfo
	UnsafeNoFsync               bool
	QuotaBackendBytes           int64
	WatchProgressNotifyInterval time.Duration
	ZapLoggerBuilder            func(*Config) error
}

// NewConfig has etcd's defaults.
func NewConfig() *Config {
	return &Config{Name: "default", WatchProgressNotifyInterval: progressInterval}
}

// InitialClusterFromName is a cluster of one member, which does not matter here.
func (c *Config) InitialClusterFromName(name string) string { return name }

// NewZapLoggerBuilder does nothing: the server writes its own log.
func NewZapLoggerBuilder(*zap.Logger) func(*Config) error { return nil }

// Etcd is a running server.
type Etcd struct {
	Server *Server
	errors chan error
}

// Server is a process.
type Server struct {
	command *exec.Cmd
	input   io.Closer
	url     string
	ready   chan struct{}
	once    sync.Once
}

// StartEtcd starts one. It ends with this process at the latest: its input does then.
func StartEtcd(config *Config) (*Etcd, error) {
	if len(config.ListenClientUrls) != 1 {
		return nil, errors.New("expected one address for clients")
	}
	program := os.Getenv("KEDGE_FACE")
	if program == "" {
		return nil, errors.New("KEDGE_FACE is not set: run ./run")
	}
	port := config.ListenClientUrls[0].Port()
	command := exec.Command(program, "serve::serve", "--exact", "--ignored", "--nocapture")
	command.Env = append(os.Environ(),
		"KEDGE_TEST_LISTEN=127.0.0.1:"+port,
		fmt.Sprintf("KEDGE_TEST_PROGRESS_MS=%d", config.WatchProgressNotifyInterval.Milliseconds()))
	command.Stderr = os.Stderr
	input, err := command.StdinPipe()
	if err != nil {
		return nil, err
	}
	output, err := command.StdoutPipe()
	if err != nil {
		return nil, err
	}
	if err := command.Start(); err != nil {
		return nil, err
	}
	server := &Server{command: command, input: input, url: "http://127.0.0.1:" + port, ready: make(chan struct{})}
	etcd := &Etcd{Server: server, errors: make(chan error, 1)}
	go server.follow(output)
	return etcd, nil
}

// follow reads the output to its end, and notes when the server listens.
func (s *Server) follow(output io.Reader) {
	lines := bufio.NewScanner(output)
	told := false
	for lines.Scan() {
		if !told && strings.HasPrefix(lines.Text(), "listening at ") {
			told = true
			close(s.ready)
		}
	}
}

// ReadyNotify is closed when the server listens.
func (s *Server) ReadyNotify() <-chan struct{} { return s.ready }

// Stop ends the server.
func (s *Server) Stop() {
	s.once.Do(func() {
		_ = s.input.Close()
		_ = s.command.Wait()
	})
}

// Cluster is of this one member.
func (s *Server) Cluster() *Server { return s }

// ClientURLs says where it listens.
func (s *Server) ClientURLs() []string { return []string{s.url} }

// Err never tells anything.
func (e *Etcd) Err() <-chan error { return e.errors }

// Close ends the server.
func (e *Etcd) Close() {
	e.Server.Stop()
	close(e.errors)
}
