package policy

import (
	"context"
	"time"

	"ugallu.io/forensics/controller/internal/repeat"
)

// tryWithin bounds one try at a question about other policies, so that one that gets no answer leaves time for the next.
const tryWithin = time.Second

// ask asks again unless the answer is one, while ctx lasts.
func ask(ctx context.Context, question func(context.Context) error) error {
	return retry(ctx, func() error { return once(ctx, question) })
}

// retry is ask for a try that calls once itself, after a wait that is not to take of the time for the answer.
func retry(ctx context.Context, once func() error) error {
	return repeat.While(ctx, func() bool { return true }, once)
}

func once(ctx context.Context, question func(context.Context) error) error {
	ctx, cancel := context.WithTimeout(ctx, tryWithin)
	defer cancel()
	return question(ctx)
}
