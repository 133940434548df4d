package main

import (
	"context"
	"errors"
	"fmt"
	"math/rand"
	"strings"
	"time"

	"google.golang.org/genproto/googleapis/rpc/errdetails"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"
)

// errUnreachable wraps the last error of a call for which there was no time to try again.
var errUnreachable = errors.New("no answer in time; sending the very same submission again is safe")

const longestPause = 10 * time.Second

// withRetries makes a call until it succeeds, is refused, or the context's deadline is near
// (docs/integrating.md, "Errors and retries").
func withRetries[T any](ctx context.Context, call func(context.Context) (T, error)) (T, error) {
	faults := 0
	for attempt := 0; ; attempt++ {
		answer, err := call(ctx)
		if err == nil {
			return answer, nil
		}
		after, retry := retryAfter(err, faults)
		if !retry {
			return answer, refusal(err)
		}
		if status.Code(err) == codes.Internal {
			faults++
		}
		pause := after + time.Duration(rand.Int63n(int64(min(longestPause, 100*time.Millisecond<<min(attempt, 10)))))
		if deadline, ok := ctx.Deadline(); ok && time.Until(deadline) <= pause {
			return answer, fmt.Errorf("%w: %w", errUnreachable, refusal(err))
		}
		time.Sleep(pause)
	}
}

// retryAfter tells whether the very same call may succeed later, and what pause the ledger asks for.
func retryAfter(err error, faults int) (time.Duration, bool) {
	said := status.Convert(err)
	var after time.Duration
	reason := ""
	for _, detail := range said.Details() {
		switch detail := detail.(type) {
		case *errdetails.RetryInfo:
			after = max(0, detail.GetRetryDelay().AsDuration())
		case *errdetails.ErrorInfo:
			if detail.GetDomain() == "daybook" {
				reason = detail.GetReason()
			}
		}
	}
	switch said.Code() {
	case codes.Unavailable, codes.DeadlineExceeded, codes.Canceled:
		return after, true
	case codes.ResourceExhausted:
		return after, reason != "" // without a reason, the message is too large and stays so
	case codes.Aborted:
		return after, reason == "STALE_VIEW"
	case codes.Internal:
		return after, faults == 0
	}
	return 0, false
}

// refusal returns the error with all that the ledger said about it.
func refusal(err error) error {
	said := status.Convert(err)
	text := []string{fmt.Sprintf("%s: %s", said.Code(), said.Message())}
	for _, detail := range said.Details() {
		switch detail := detail.(type) {
		case *errdetails.ErrorInfo:
			text = append(text, fmt.Sprintf("reason %s, request %s", detail.GetReason(), detail.GetMetadata()["request_id"]))
		case *errdetails.BadRequest:
			for _, each := range detail.GetFieldViolations() {
				text = append(text, fmt.Sprintf("%s: %s", each.GetField(), each.GetDescription()))
			}
		}
	}
	return errors.New(strings.Join(text, "; "))
}
