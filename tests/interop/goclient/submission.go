package main

import (
	"crypto/ed25519"
	"crypto/sha256"
	"errors"
	"fmt"
	"strconv"
	"strings"
)

const payloadType = "application/vnd.daybook.submission+text"

// submission is records of one register, in order, with what is signed over them.
type submission struct {
	origin  string // <ledger origin>/<register>
	records [][]byte
	paths   [][]hash // of each record in the submission tree
	body    []byte
	id      string
}

// newSubmission works out what is signed over records (docs/integrating.md, step 3).
func newSubmission(origin string, records [][]byte) (submission, error) {
	leaves := make([]hash, len(records))
	for i, record := range records {
		leaves[i] = leafHash(record)
	}
	root, paths, err := submissionTree(leaves)
	if err != nil {
		return submission{}, err
	}
	body := submissionBody(origin, len(records), root)
	return submission{origin, records, paths, body, submissionID(body)}, nil
}

func submissionBody(origin string, count int, root hash) []byte {
	return []byte(fmt.Sprintf("daybook.submission/1\n%s\n%d\n%s\n", origin, count, encodeBase64(root[:])))
}

func submissionID(body []byte) string {
	id := sha256.Sum256(body)
	return encodeHex(id[:])
}

// preAuthentication is the DSSE encoding of a body: the bytes that are signed.
func preAuthentication(body []byte) []byte {
	return []byte(fmt.Sprintf("DSSEv1 %d %s %d %s", len(payloadType), payloadType, len(body), body))
}

// signature is one Ed25519 signature over a submission.
type signature struct {
	key   ed25519.PublicKey
	bytes []byte
}

func sign(body []byte, key ed25519.PrivateKey) signature {
	return signature{key.Public().(ed25519.PublicKey), ed25519.Sign(key, preAuthentication(body))}
}

func (s signature) verify(body []byte) error {
	if len(s.key) != ed25519.PublicKeySize || !ed25519.Verify(s.key, preAuthentication(body), s.bytes) {
		return errors.New("the signature over the submission does not verify")
	}
	return nil
}

// parseDecimal reads 0|[1-9][0-9]*, up to 2^63-1.
func parseDecimal(text string) (uint64, error) {
	number, err := strconv.ParseUint(text, 10, 63)
	if err == nil && strconv.FormatUint(number, 10) != text {
		err = fmt.Errorf("%q is not a number in its one spelling", text)
	}
	return number, err
}

// register returns the register's name: what follows the ledger origin.
func (s submission) register() string {
	_, name, _ := strings.Cut(s.origin, "/")
	return name
}
