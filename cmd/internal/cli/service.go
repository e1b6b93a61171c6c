package cli

import (
	"errors"
	"flag"
	"fmt"
	"io"
	"log/slog"
	"net"
	"net/http"
	"regexp"
	"runtime"
	"strings"
	"syscall"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/client_golang/prometheus/collectors"
	"github.com/prometheus/common/expfmt"

	"egress-agent/pkg/netpol"
)

// Service has the flags that both programs share when they run without a command. It also serves health and metrics.
type Service struct {
	Policy    *PolicyFlags // nil for a command that compiles no policy
	HTTPAddr  string
	logFormat string
	logLevel  string
	version   bool
}

// NewService returns a Service with the default values.
func NewService() *Service {
	return &Service{Policy: NewPolicyFlags(), HTTPAddr: ":8080", logFormat: "text", logLevel: "info"}
}

// AddFlags adds the flags of s to flagSet.
func (s *Service) AddFlags(flagSet *flag.FlagSet) {
	if s.Policy != nil {
		s.Policy.AddFlags(flagSet)
	}
	flagSet.StringVar(&s.HTTPAddr, "http-addr", s.HTTPAddr, "`address` that serves /healthz, /readyz and /metrics")
	flagSet.StringVar(&s.logFormat, "log-format", s.logFormat, "`format` of the log, on standard error: text or json")
	flagSet.StringVar(&s.logLevel, "log-level", s.logLevel, "lowest `level` to log: debug, info, warn or error")
	flagSet.BoolVar(&s.version, "version", s.version, "print the version and exit")
}

// Parse parses and checks the flags of a program. validate checks the flags that only this program has. If ok is false,
// the program must exit with status.
func (s *Service) Parse(flags *flag.FlagSet, args []string, usage string, validate func() error, stdout, stderr io.Writer) (options netpol.Options, log *slog.Logger, status int, ok bool) {
	if status, ok := Parse(flags, args, usage, NewOutput(stdout), NewOutput(stderr)); !ok {
		return options, nil, status, false
	}
	if s.version {
		fmt.Fprintln(stdout, Version(flags.Name()))
		return options, nil, ExitOK, false
	}
	var policyErr error
	if s.Policy != nil {
		options, policyErr = s.Policy.Options()
	}
	log, logErr := s.logger(stderr)
	if err := errors.Join(policyErr, logErr, validate(), CheckNoArguments(flags)); err != nil {
		NewOutput(stderr).UsageError(flags.Name(), err)
		return options, nil, ExitUsage, false
	}
	return options, log, ExitOK, true
}

func (s *Service) logger(w io.Writer) (*slog.Logger, error) {
	var level slog.Level
	if err := level.UnmarshalText([]byte(s.logLevel)); err != nil {
		return nil, fmt.Errorf("invalid --log-level %q: must be debug, info, warn or error", s.logLevel)
	}
	options := &slog.HandlerOptions{Level: level}
	switch s.logFormat {
	case "text":
		return slog.New(slog.NewTextHandler(w, options)), nil
	case "json":
		return slog.New(slog.NewJSONHandler(w, options)), nil
	}
	return nil, fmt.Errorf("invalid --log-format %q: must be text or json", s.logFormat)
}

// NewRegistry returns a registry with metrics of the process, the Go runtime and the program's build.
func NewRegistry(program string) *prometheus.Registry {
	registry := prometheus.NewRegistry()
	commit, date := revision()
	build := prometheus.NewGauge(prometheus.GaugeOpts{
		Name: strings.ReplaceAll(program, "-", "_") + "_build_info", Help: "Always 1; the labels are the commit, its date and the Go version of the build.",
		ConstLabels: prometheus.Labels{"commit": commit, "date": date, "go": runtime.Version()},
	})
	build.Set(1)
	registry.MustRegister(build)
	// The collector's default heap metrics also count objects that await collection. This metric counts only live
	// objects.
	liveHeap := collectors.WithGoCollectorRuntimeMetrics(collectors.GoRuntimeMetricsRule{Matcher: regexp.MustCompile("^/gc/heap/live:bytes$")})
	registry.MustRegister(collectors.NewGoCollector(liveHeap), collectors.NewProcessCollector(collectors.ProcessCollectorOpts{}))
	return registry
}

// ServeHealth starts a server at HTTPAddr, and returns a function that stops it. GET /healthz returns ok. GET /readyz
// returns the status from ready. If ready returns false, the HTTP status is 503. GET /metrics returns the metrics.
func (s *Service) ServeHealth(ready func() (status string, ok bool), metrics prometheus.Gatherer, log *slog.Logger) (close func() error, err error) {
	listener, err := Listen("http-addr", s.HTTPAddr)
	if err != nil {
		return nil, err
	}
	mux := http.NewServeMux()
	mux.HandleFunc("GET /healthz", func(w http.ResponseWriter, _ *http.Request) { fmt.Fprintln(w, "ok") })
	mux.HandleFunc("GET /metrics", func(w http.ResponseWriter, _ *http.Request) { writeMetrics(w, metrics, log) })
	mux.HandleFunc("GET /readyz", func(w http.ResponseWriter, _ *http.Request) {
		status, ok := ready()
		if !ok {
			http.Error(w, status, http.StatusServiceUnavailable)
			return
		}
		fmt.Fprintln(w, status)
	})
	server := &http.Server{Handler: mux, ReadHeaderTimeout: 5 * time.Second, ReadTimeout: 10 * time.Second, WriteTimeout: 10 * time.Second, IdleTimeout: time.Minute}
	go func() {
		if err := server.Serve(listener); !errors.Is(err, http.ErrServerClosed) {
			log.Error("serve health failed", "error", err)
		}
	}()
	return server.Close, nil
}

// Listen listens at a TCP address, which is the value of a flag. The error names the flag. If another program uses the
// port, the error says so.
func Listen(flag, address string) (net.Listener, error) {
	listener, err := net.Listen("tcp", address)
	switch {
	case errors.Is(err, syscall.EADDRINUSE):
		return nil, fmt.Errorf("another program uses the port of --%s %s: stop it, or choose another port", flag, address)
	case err != nil:
		return nil, fmt.Errorf("--%s: %w", flag, err)
	}
	return listener, nil
}

// writeMetrics writes the metrics in the Prometheus text format. The library's handler would add other formats and
// compression, but also a third of a megabyte to the program.
func writeMetrics(w http.ResponseWriter, metrics prometheus.Gatherer, log *slog.Logger) {
	families, err := metrics.Gather()
	if err != nil {
		log.Error("gather metrics failed", "error", err)
		http.Error(w, err.Error(), http.StatusInternalServerError)
		return
	}
	w.Header().Set("Content-Type", string(expfmt.NewFormat(expfmt.TypeTextPlain)))
	for _, family := range families {
		if _, err := expfmt.MetricFamilyToText(w, family); err != nil {
			return // the client closed the connection
		}
	}
}
