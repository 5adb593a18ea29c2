package conformance

import (
	"encoding/json"
	"os"
	"time"

	"github.com/onsi/ginkgo/v2"
	"github.com/onsi/ginkgo/v2/types"
)

// A line of the file named by KEDGE_CONFORMANCE_RESULTS: a test begins or ends. Written at once, so that a process that
// is killed loses nothing but the test it was at.
type event struct {
	Event   string  `json:"event"`
	Name    string  `json:"name"`
	Time    string  `json:"time"`
	State   string  `json:"state,omitempty"`
	Seconds float64 `json:"seconds,omitempty"`
	Message string  `json:"message,omitempty"`
	Place   string  `json:"place,omitempty"`
	Step    string  `json:"step,omitempty"`
	Output  string  `json:"output,omitempty"`
}

// What one test may leave in the file; the end of it says why it failed.
const outputBytes = 256 << 10

func write(e event) {
	path := os.Getenv("KEDGE_CONFORMANCE_RESULTS")
	if path == "" {
		return
	}
	e.Time = time.Now().UTC().Format(time.RFC3339Nano)
	line, err := json.Marshal(e)
	if err != nil {
		panic(err)
	}
	file, err := os.OpenFile(path, os.O_CREATE|os.O_APPEND|os.O_WRONLY, 0o644)
	if err != nil {
		panic(err)
	}
	defer file.Close()
	if _, err := file.Write(append(line, '\n')); err != nil {
		panic(err)
	}
}

// Called after flags are parsed: the framework rehearses the suite then, and what was registered before is lost.
func reportTests() {
	ginkgo.BeforeEach(func() {
		write(event{Event: "begin", Name: ginkgo.CurrentSpecReport().FullText()})
	})
	ginkgo.ReportAfterEach(reportEnd)
}

func reportEnd(report ginkgo.SpecReport) {
	// Tests that were not asked for pass by here too.
	if report.LeafNodeType != types.NodeTypeIt || report.RunTime == 0 {
		return
	}
	output := report.CapturedGinkgoWriterOutput
	if len(output) > outputBytes {
		output = output[len(output)-outputBytes:]
	}
	write(event{
		Event:   "end",
		Name:    report.FullText(),
		State:   report.State.String(),
		Seconds: report.RunTime.Seconds(),
		Message: report.Failure.Message,
		Place:   report.Failure.Location.String(),
		Step:    lastStep(report),
		Output:  output,
	})
}

// What the test says it was at.
func lastStep(report ginkgo.SpecReport) string {
	steps := report.SpecEvents.WithType(types.SpecEventByStart)
	if len(steps) == 0 {
		return "its start"
	}
	return steps[len(steps)-1].Message
}
