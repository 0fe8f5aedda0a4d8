package worm

import "testing"

func TestPartsHoldATebibyteAndStaySmallForLong(t *testing.T) {
	var all int64
	for number := 1; number <= maxParts; number++ {
		size := partSize(number)
		if size < 5<<20 || size > 5<<30 {
			t.Fatalf("part %d of %d bytes is not allowed", number, size)
		}
		if all < 11<<30 && size > 8<<20 {
			t.Fatalf("part %d after %d bytes has %d", number, all, size)
		}
		all += int64(size)
	}
	if all < 1<<40 {
		t.Errorf("%d parts hold %d bytes", maxParts, all)
	}
}
