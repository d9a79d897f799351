package config

import (
	"testing"

	"pgregory.net/rapid"
)

func TestDistance(t *testing.T) {
	for _, tt := range []struct {
		a, b string
		want int
	}{{"", "", 0}, {"", "abc", 3}, {"abc", "", 3}, {"kitten", "sitting", 3}, {"lisen", "listen", 1}, {"ab", "ba", 2}} {
		if got := distance(tt.a, tt.b); got != tt.want {
			t.Errorf("distance(%q, %q) = %d, want %d", tt.a, tt.b, got, tt.want)
		}
	}
}

func TestDistanceIsAMetric(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		word := rapid.StringMatching(`[ab]{0,6}`)
		a, b, c := word.Draw(t, "a"), word.Draw(t, "b"), word.Draw(t, "c")
		if distance(a, b) != distance(b, a) {
			t.Error("not symmetric")
		}
		if (distance(a, b) == 0) != (a == b) {
			t.Error("zero for different words, or not for equal ones")
		}
		if distance(a, c) > distance(a, b)+distance(b, c) {
			t.Error("a detour is shorter")
		}
	})
}

func TestNearest(t *testing.T) {
	if got := nearest("infp", []string{"debug", "info", "warn"}); got != "info" {
		t.Errorf("got %q", got)
	}
	if got := nearest("x", nil); got != "" {
		t.Errorf("got %q", got)
	}
}
