package custody_test

import (
	"errors"
	"strings"
	"testing"

	"ugallu.io/forensics/api/evidence"
	"ugallu.io/forensics/controller/internal/custody"
)

// chain is what each statement of the whole incident names as the one before it, by its subject's uid.
func chain() map[string]string {
	of := func(key string) string { return digest("payload of " + key) }
	return map[string]string{
		"uid-" + snapshot: of(freeze), "uid-" + upload: of(snapshot), "uid-completed": of(upload),
		"uid-inc": of("completed"), "uid-" + unfreeze: of(upload), "uid-" + second: of(unfreeze),
	}
}

// chained looks at both records, in which a statement names something else.
func chained(t *testing.T, names map[string]string) (first, after error) {
	t.Helper()
	captured, err := custody.Captured(whole())
	if err != nil {
		t.Fatal(err)
	}
	released, err := custody.Released(whole(), captured)
	if err != nil {
		t.Fatal(err)
	}
	named := func(s *evidence.CustodyStatement) (string, error) { return names[s.Subject.UID], nil }
	return custody.Chained(whole(), captured, named), custody.Chained(whole(), released, named)
}

func TestARecordIsOfAnUnbrokenChain(t *testing.T) {
	if first, after := chained(t, chain()); first != nil || after != nil {
		t.Errorf("unbroken: %v, %v", first, after)
	}
	about := map[string]string{
		"uid-" + freeze: freeze, "uid-" + snapshot: snapshot, "uid-" + upload: upload, "uid-completed": "se-inc-completed",
		"uid-inc": "inc", "uid-" + unfreeze: unfreeze, "uid-" + second: second,
	}
	inSecond := map[string]bool{"uid-inc": true, "uid-" + unfreeze: true, "uid-" + second: true}
	for uid, name := range about {
		broken := chain()
		broken[uid] = digest("another")
		first, after := chained(t, broken)
		refused, other := first, after
		if inSecond[uid] {
			refused, other = after, first
		}
		if !errors.Is(refused, custody.ErrBroken) || !strings.Contains(refused.Error(), "about "+name+", ") || other != nil {
			t.Errorf("%s: %v; the other record: %v", name, refused, other)
		}
		broken[uid] = ""
		if _, none := chain()[uid]; none {
			if first, after = chained(t, broken); !errors.Is(errors.Join(first, after), custody.ErrBroken) {
				t.Errorf("%s names nothing: %v, %v", name, first, after)
			}
		}
	}
}

func TestAStatementThatCanNotBeReadIsNoBrokenChain(t *testing.T) {
	record, err := custody.Captured(whole())
	if err != nil {
		t.Fatal(err)
	}
	away := errors.New("away")
	err = custody.Chained(whole(), record, func(*evidence.CustodyStatement) (string, error) { return "", away })
	if !errors.Is(err, away) || errors.Is(err, custody.ErrBroken) {
		t.Errorf("got %v", err)
	}
}
