package main

import (
	"net/http"
	"testing"
	"time"
)

func TestAPIServersClockGoesOnFromItsLastAnswer(t *testing.T) {
	var dates serverDate
	if !dates.now().IsZero() || !dates.last().IsZero() {
		t.Errorf("before the first answer: last %v, now %v", dates.last(), dates.now())
	}
	// The node's clock is a year off.
	date := time.Now().Add(-365 * 24 * time.Hour).Truncate(time.Second)
	answer := &http.Response{Header: http.Header{"Date": []string{date.UTC().Format(http.TimeFormat)}}, Body: http.NoBody}
	transport := dates.wrap(roundTrip(func(*http.Request) (*http.Response, error) { return answer, nil }))
	got, err := transport.RoundTrip(nil)
	if err != nil {
		t.Fatal(err)
	}
	if err := got.Body.Close(); err != nil {
		t.Fatal(err)
	}
	first := dates.now()
	time.Sleep(time.Millisecond)
	if second := dates.now(); !dates.last().Equal(date) || first.Before(date) || !second.After(first) || second.Sub(date) > time.Hour {
		t.Errorf("last %v, now %v and then %v, want from %v on", dates.last(), first, second, date)
	}
}
