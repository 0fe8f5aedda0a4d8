package play

import (
	"errors"
	"fmt"
	"io"
	"strings"
	"time"
)

// act is one scene of the play: it returns what it has proven, in one line.
type act struct {
	title string
	run   func() (proof string, err error)
}

// row is one line of the closing table.
type row struct {
	title, proof string
	took         time.Duration
}

// screen writes the play as it goes and remembers it for the closing table.
type screen struct {
	out  io.Writer
	rows []row
	// err is the first error of writing; it is reported at the end.
	err error
}

func (s *screen) printf(format string, args ...any) {
	if _, err := fmt.Fprintf(s.out, format, args...); err != nil && s.err == nil {
		s.err = fmt.Errorf("write to the terminal: %w", err)
	}
}

// play runs one act; a claim that fails ends the play.
func (s *screen) play(a act) error {
	s.printf("\n▶ %s\n", a.title)
	start := time.Now()
	proof, err := a.run()
	took := time.Since(start)
	if err != nil {
		s.printf("✗ %s (%s)\n", a.title, seconds(took))
		return fmt.Errorf("%s: %w", a.title, err)
	}
	s.printf("✓ %s (%s)\n", proof, seconds(took))
	s.rows = append(s.rows, row{title: a.title, proof: proof, took: took})
	return nil
}

// note is one line below the act that runs.
func (s *screen) note(format string, args ...any) {
	s.printf("    "+format+"\n", args...)
}

// table closes the play with what was proven.
func (s *screen) table() error {
	wide := 0
	for _, r := range s.rows {
		wide = max(wide, len([]rune(r.title)))
	}
	s.printf("\nWhat was proven\n%s\n", strings.Repeat("─", wide+72))
	total := time.Duration(0)
	for _, r := range s.rows {
		s.printf("%-*s %9s  %s\n", wide, r.title, seconds(r.took), r.proof)
		total += r.took
	}
	s.printf("%s\n%-*s %9s\n", strings.Repeat("─", wide+72), wide, "the whole play", seconds(total))
	return s.err
}

// checks collects what a claim lacks, so that a failure names everything at once.
type checks []error

// demand notes a claim that is false.
func (c *checks) demand(held bool, format string, args ...any) {
	if !held {
		*c = append(*c, fmt.Errorf(format, args...))
	}
}

func (c checks) err() error { return errors.Join(c...) }

func seconds(d time.Duration) string { return fmt.Sprintf("%.1f s", d.Seconds()) }

func millis(d time.Duration) string { return fmt.Sprintf("%.1f ms", float64(d.Microseconds())/1000) }
