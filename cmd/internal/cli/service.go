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
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/client_golang/prometheus/collectors"
	"github.com/prometheus/common/expfmt"

	"egress-agent/pkg/netpol"
)

// Service are the flags that both programs have when they run.
type Service struct {
	Policy    *PolicyFlags
	HTTPAddr  string
	logFormat string
	logLevel  string
	version   bool
}

// NewService returns the defaults.
func NewService() *Service {
	return &Service{Policy: NewPolicyFlags(), HTTPAddr: ":8080", logFormat: "text", logLevel: "info"}
}

// AddFlags registers the flags.
func (s *Service) AddFlags(flags *flag.FlagSet) {
	s.Policy.AddFlags(flags)
	flags.StringVar(&s.HTTPAddr, "http-addr", s.HTTPAddr, "`address` that serves /healthz, /readyz and /metrics")
	flags.StringVar(&s.logFormat, "log-format", s.logFormat, "`format` of the log, on standard error: text or json")
	flags.StringVar(&s.logLevel, "log-level", s.logLevel, "least `level` logged: debug, info, warn or error")
	flags.BoolVar(&s.version, "version", s.version, "print the version and exit")
}

// Parse parses a program's flags and checks them; validate checks those of its own. When ok is false
// the program is done, with that exit status.
func (s *Service) Parse(flags *flag.FlagSet, args []string, usage string, validate func() error, stdout, stderr io.Writer) (options netpol.Options, log *slog.Logger, status int, ok bool) {
	if status, ok := Parse(flags, args, usage, NewOutput(stdout), NewOutput(stderr)); !ok {
		return options, nil, status, false
	}
	if s.version {
		fmt.Fprintln(stdout, Version(flags.Name()))
		return options, nil, ExitOK, false
	}
	options, rulesErr := s.Policy.Options()
	log, logErr := s.logger(stderr)
	if err := errors.Join(rulesErr, logErr, validate(), CheckNoArguments(flags)); err != nil {
		NewOutput(stderr).Complain(flags.Name(), err)
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

// NewRegistry returns a registry of metrics with those of the process, of the Go runtime and of the program's
// build.
func NewRegistry(program string) *prometheus.Registry {
	registry := prometheus.NewRegistry()
	commit, date := revision()
	build := prometheus.NewGauge(prometheus.GaugeOpts{
		Name: strings.ReplaceAll(program, "-", "_") + "_build_info", Help: "1; its labels say what the program was built from.",
		ConstLabels: prometheus.Labels{"commit": commit, "date": date, "go": runtime.Version()},
	})
	build.Set(1)
	registry.MustRegister(build)
	// What is alive, beside what awaits collection.
	live := collectors.WithGoCollectorRuntimeMetrics(collectors.GoRuntimeMetricsRule{Matcher: regexp.MustCompile("^/gc/heap/live:bytes$")})
	registry.MustRegister(collectors.NewGoCollector(live), collectors.NewProcessCollector(collectors.ProcessCollectorOpts{}))
	return registry
}

// ServeHealth answers, until close is called, GET /healthz with ok, GET /readyz with the status that ready
// gives or, while it is not ok, with that and 503, and GET /metrics with what is registered.
func (s *Service) ServeHealth(ready func() (status string, ok bool), metrics prometheus.Gatherer, log *slog.Logger) (close func() error, err error) {
	listener, err := net.Listen("tcp", s.HTTPAddr)
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
			log.Error("health is not served", "error", err)
		}
	}()
	return server.Close, nil
}

// writeMetrics answers in Prometheus' text format. The library's own handler knows more formats, and ways to
// compress them, for a third of a megabyte of program.
func writeMetrics(w http.ResponseWriter, metrics prometheus.Gatherer, log *slog.Logger) {
	families, err := metrics.Gather()
	if err != nil {
		log.Error("metrics not gathered", "error", err)
		http.Error(w, err.Error(), http.StatusInternalServerError)
		return
	}
	w.Header().Set("Content-Type", string(expfmt.NewFormat(expfmt.TypeTextPlain)))
	for _, family := range families {
		if _, err := expfmt.MetricFamilyToText(w, family); err != nil {
			return // the client has gone
		}
	}
}
