// Command goclient registers three decisions with Daybook, and verifies the answer itself.
//
// It is written from docs/integrating.md alone, with nothing but gRPC and Go's standard library, to show that
// a department in any language can do the same. Exit status: 0 registered and proved; 1 the ledger's answer
// is wrong; 2 bad input, or refused; 3 not reached, or not proved in time.
package main

import (
	"context"
	"crypto/ed25519"
	"encoding/json"
	"errors"
	"flag"
	"fmt"
	"os"
	"path/filepath"
	"regexp"
	"strings"
	"time"

	registrationv1 "daybook.example/goclient/gen/registrationv1"
	submissionv1 "daybook.example/goclient/gen/submissionv1"

	"google.golang.org/grpc"
	"google.golang.org/grpc/credentials/insecure"
	"google.golang.org/protobuf/proto"
)

// errWrong marks an answer that does not verify: evidence against the ledger.
var errWrong = errors.New("THE LEDGER'S ANSWER IS WRONG")

// wrong says that an answer does not verify. One with too few cosignatures is not wrong, only not yet proved.
func wrong(err error) error {
	if errors.Is(err, errUnsealed) {
		return err
	}
	return fmt.Errorf("%w: %w", errWrong, err)
}

type settings struct {
	server, policy, register, key, receipts, resend string
	timeout                                         time.Duration
}

func main() {
	var s settings
	flag.StringVar(&s.server, "server", "127.0.0.1:7070", "HOST:PORT of the ledger's gRPC")
	flag.StringVar(&s.policy, "policy", "", "your witness policy file: the keys that you trust")
	flag.StringVar(&s.register, "register", "", "the register to write to, <department>/<office>")
	flag.StringVar(&s.key, "key", "", "the department's secret key file, from `daybook keygen`")
	flag.StringVar(&s.receipts, "receipts", "receipts", "folder for receipts")
	flag.StringVar(&s.resend, "resend", "", "send a kept .submission file again instead of new records")
	flag.DurationVar(&s.timeout, "timeout", time.Minute, "for each call, with its retries")
	flag.Parse()
	if err := run(s); err != nil {
		fmt.Fprintln(os.Stderr, "goclient:", err)
		switch {
		case errors.Is(err, errWrong):
			os.Exit(1)
		case errors.Is(err, errUnreachable), errors.Is(err, errPending), errors.Is(err, errUnsealed):
			os.Exit(3)
		}
		os.Exit(2)
	}
}

// client holds what one run has: the connection, what it trusts, and where it keeps things.
type client struct {
	settings
	policy policy
	stub   registrationv1.RegistrationServiceClient
	folder string
}

func run(s settings) error {
	trusted, err := readPolicy(s.policy)
	if err != nil {
		return err
	}
	connection, err := grpc.NewClient(s.server,
		grpc.WithTransportCredentials(insecure.NewCredentials()),
		grpc.WithDisableRetry(), // one retry owner: calls.go
	)
	if err != nil {
		return err
	}
	defer connection.Close()
	c := client{
		s, trusted, registrationv1.NewRegistrationServiceClient(connection),
		filepath.Join(s.receipts, filepath.FromSlash(s.register)),
	}
	opening, err := c.receipt(governing, 0)
	if err != nil {
		return err
	}
	key, err := acknowledgementKey(&c.policy, opening)
	if err != nil {
		return wrong(err)
	}
	ours, signed, err := c.submission()
	if err != nil {
		return err
	}
	return c.register(ours, signed, key)
}

func (c *client) deadline() (context.Context, context.CancelFunc) {
	return context.WithTimeout(context.Background(), c.timeout)
}

// receipt asks for the receipt of an entry. Its bytes are not yet verified.
func (c *client) receipt(register string, index uint64) ([]byte, error) {
	ctx, cancel := c.deadline()
	defer cancel()
	request := &registrationv1.GetReceiptRequest{
		Register: register, Entry: &registrationv1.GetReceiptRequest_Index{Index: index},
	}
	response, err := withRetries(ctx, func(ctx context.Context) (*registrationv1.GetReceiptResponse, error) {
		return c.stub.GetReceipt(ctx, request)
	})
	return response.GetReceipt(), err
}

// submission returns a signed submission: one kept earlier, or three new decisions, kept before they are
// sent.
func (c *client) submission() (submission, signature, error) {
	if c.resend != "" {
		return c.keptSubmission()
	}
	text, err := os.ReadFile(c.key)
	if err != nil {
		return submission{}, signature{}, err
	}
	key, err := parseSecretKey(string(text))
	if err != nil {
		return submission{}, signature{}, fmt.Errorf("%s: %w", c.key, err)
	}
	origin := c.policy.ledgerOrigin + "/" + c.settings.register
	drafts, open, err := decisions(origin, c.settings.register)
	if err != nil {
		return submission{}, signature{}, err
	}
	prepared, err := c.prepare(drafts)
	if err != nil {
		return submission{}, signature{}, err
	}
	ours, err := checkPrepared(prepared, drafts, origin, c.settings.register)
	if err != nil {
		return submission{}, signature{}, wrong(err)
	}
	signed := sign(ours.body, key)
	return ours, signed, c.keepSubmission(ours, signed, open)
}

func (c *client) prepare(drafts []*registrationv1.Decision) (*registrationv1.PrepareRecordsResponse, error) {
	request := &registrationv1.PrepareRecordsRequest{LedgerOrigin: c.policy.ledgerOrigin, Register: c.settings.register}
	for _, each := range drafts {
		request.Records = append(request.Records, &registrationv1.Draft{Record: &registrationv1.Draft_Decision{Decision: each}})
	}
	ctx, cancel := c.deadline()
	defer cancel()
	prepared, err := withRetries(ctx, func(ctx context.Context) (*registrationv1.PrepareRecordsResponse, error) {
		return c.stub.PrepareRecords(ctx, request)
	})
	if err != nil {
		return nil, err
	}
	var found []string
	for _, each := range prepared.GetViolations() {
		found = append(found, fmt.Sprintf("%s: %s (%s)", each.GetField(), each.GetDescription(), each.GetReason()))
	}
	if len(found) > 0 {
		return nil, errors.New("the drafts break rules: " + strings.Join(found, "; "))
	}
	return prepared, nil
}

// keepSubmission stores what will be sent, and what opens the withheld title, before anything is sent: after
// a crash the very same submission can be sent again.
func (c *client) keepSubmission(s submission, signed signature, open disclosure) error {
	data, err := proto.Marshal(message(s, signed))
	if err != nil {
		return err
	}
	opens, err := json.MarshalIndent(open, "", " ")
	if err != nil {
		return err
	}
	secret := fmt.Sprintf("%s.%d.disclosure", open.RecordID, open.Version)
	if err := write(filepath.Join(c.folder, secret), append(opens, '\n'), 0o600); err != nil {
		return err
	}
	return write(filepath.Join(c.folder, s.id+".submission"), data, 0o644)
}

func (c *client) keptSubmission() (submission, signature, error) {
	data, err := os.ReadFile(c.resend)
	if err != nil {
		return submission{}, signature{}, err
	}
	var kept submissionv1.SignedSubmission
	if err := proto.Unmarshal(data, &kept); err != nil {
		return submission{}, signature{}, fmt.Errorf("%s: %w", c.resend, err)
	}
	s, err := newSubmission(c.policy.ledgerOrigin+"/"+c.settings.register, kept.GetRecords())
	if err != nil || len(kept.GetSignatures()) != 1 || string(s.body) != string(kept.GetBody()) {
		return submission{}, signature{}, fmt.Errorf("%s is not a submission to %s", c.resend, s.origin)
	}
	signed := signature{kept.Signatures[0].GetKey(), kept.Signatures[0].GetSignature()}
	return s, signed, signed.verify(s.body)
}

func message(s submission, signed signature) *submissionv1.SignedSubmission {
	return &submissionv1.SignedSubmission{
		Body:       s.body,
		Records:    s.records,
		Signatures: []*submissionv1.Signature{{Key: signed.key, Signature: signed.bytes}},
	}
}

// register sends a submission until its answer is proved, and keeps the receipts.
func (c *client) register(s submission, signed signature, key verifierKey) error {
	ctx, cancel := c.deadline()
	defer cancel()
	for {
		answer, err := withRetries(ctx, func(ctx context.Context) (*registrationv1.RegisterResponse, error) {
			return c.stub.Register(ctx, &registrationv1.RegisterRequest{
				Submission: message(s, signed), WaitFor: submissionv1.WaitFor_WAIT_FOR_SEALED,
			})
		})
		if err != nil {
			return err
		}
		acknowledgement := answer.GetAcknowledgement()
		if acknowledgement.GetState() == submissionv1.State_STATE_REJECTED {
			return c.rejected(s, acknowledgement, key)
		}
		proved, err := c.policy.verifyAnswer(s, signed, acknowledgement, key)
		if err == nil {
			return c.keep(s, signed.key, acknowledgement, proved)
		}
		if !errors.Is(err, errPending) {
			return wrong(err)
		}
		if err := write(filepath.Join(c.folder, s.id+".acknowledgement"), acknowledgement.GetNote(), 0o644); err != nil {
			return err
		}
		select {
		case <-ctx.Done():
			return errPending
		case <-time.After(time.Second):
		}
	}
}

// rejected reports a submission that lost a race after it was acknowledged: the register itself says so.
func (c *client) rejected(s submission, answer *submissionv1.Acknowledgement, key verifierKey) error {
	if err := s.verifyAcknowledgement(answer.GetNote(), key); err != nil {
		return wrong(err)
	}
	receipt, err := c.receipt(s.register(), answer.GetRejection().GetIndex())
	if err != nil {
		return err
	}
	reason, err := c.policy.verifyRejection(s, receipt)
	if err != nil {
		return wrong(err)
	}
	return fmt.Errorf("rejected at index %d of the register: %s", answer.GetRejection().GetIndex(), reason)
}

// keySections returns what shows that our key was authorised, for every receipt to carry. The records are
// registered whatever comes of this: without it, a receipt says only who claims to have signed.
func (c *client) keySections(s submission, key ed25519.PublicKey, governingSize uint64, index uint64) ([]section, error) {
	served, err := c.receipt(s.register(), index)
	if err != nil {
		fmt.Fprintln(os.Stderr, "goclient: the receipts will not show who the key belongs to:", err)
		return nil, nil
	}
	_, others, err := c.policy.verifyReceipt(served, s.origin)
	if err == nil {
		department, _, _ := strings.Cut(s.register(), "/")
		others, err = c.policy.verifyKeySections(others, key, department, governingSize)
	}
	if errors.Is(err, errUnsealed) {
		return nil, nil
	}
	if err != nil {
		return nil, wrong(err)
	}
	return others, nil
}

// keep writes the acknowledgement and the receipts.
func (c *client) keep(s submission, key ed25519.PublicKey, answer *submissionv1.Acknowledgement, proved registered) error {
	keySections, err := c.keySections(s, key, answer.GetEnvelope().GetGoverningSize(), proved.firstIndex)
	if err != nil {
		return err
	}
	if err := write(filepath.Join(c.folder, s.id+".acknowledgement"), answer.GetNote(), 0o644); err != nil {
		return err
	}
	for i, receipt := range proved.receipts(keySections) {
		name, err := receiptName(s.records[i])
		if err != nil {
			return err
		}
		if err := write(filepath.Join(c.folder, name), receipt, 0o644); err != nil {
			return err
		}
	}
	how := "registered"
	if answer.GetAlreadyRegistered() {
		how = "already registered"
	}
	witnessed := "not witnessed"
	if proved.sealed {
		witnessed = "sealed by witnesses"
	}
	fmt.Printf("%s: %d records at index %d of %s, in the tree of %d entries, %s\nreceipts in %s\n", how,
		len(s.records), proved.firstIndex, s.register(), proved.checkpoint.size, witnessed, c.folder)
	return nil
}

var uuidForm = regexp.MustCompile(`^[0-9a-f]{8}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{12}$`)

// receiptName returns <record_id>.<version>.receipt; a record_id becomes a file name only if it is a uuid.
func receiptName(record []byte) (string, error) {
	var names struct {
		RecordID string `json:"record_id"`
		Version  uint64
	}
	if err := json.Unmarshal(record, &names); err != nil {
		return "", err
	}
	if !uuidForm.MatchString(names.RecordID) {
		return "", fmt.Errorf("%q is not a uuid", names.RecordID)
	}
	return fmt.Sprintf("%s.%d.receipt", names.RecordID, names.Version), nil
}

// write puts a file in place whole or not at all.
func write(path string, data []byte, mode os.FileMode) error {
	if err := os.MkdirAll(filepath.Dir(path), 0o755); err != nil {
		return err
	}
	aside, err := os.OpenFile(path+".part", os.O_WRONLY|os.O_CREATE|os.O_TRUNC, mode)
	if err != nil {
		return err
	}
	_, err = aside.Write(data)
	err = errors.Join(err, aside.Sync(), aside.Close())
	if err != nil {
		return err
	}
	return os.Rename(path+".part", path)
}
