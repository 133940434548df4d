package main

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"regexp"
)

// envelope is the ledger's part of an entry: one value for a whole submission.
type envelope struct {
	acceptedAt    string
	submitter     string
	governingSize uint64
}

var (
	acceptedAtForm = regexp.MustCompile(`^[0-9]{4}-[0-9]{2}-[0-9]{2}T[0-9]{2}:[0-9]{2}:[0-9]{2}\.[0-9]{3}Z$`)
	submitterForm  = regexp.MustCompile(`^[!#-\[\]-~]{1,256}$`)
)

// membership is a record's place in its submission, with the signatures.
type membership struct {
	count, position int
	path            []hash
	signatures      []signature
}

// formEntry returns envelope LF record, the bytes that are hashed (docs/integrating.md, step 6). A record
// that the ledger wrote itself has no membership.
func formEntry(e envelope, of *membership, record []byte) ([]byte, error) {
	if !acceptedAtForm.MatchString(e.acceptedAt) || !submitterForm.MatchString(e.submitter) {
		return nil, errors.New("envelope: accepted_at or submitter is malformed")
	}
	var out bytes.Buffer
	fmt.Fprintf(&out, `{"accepted_at":"%s","governing_size":%d,`, e.acceptedAt, e.governingSize)
	if of != nil {
		fmt.Fprintf(&out, `"submission":{"count":%d,`, of.count)
		if of.count > 1 {
			fmt.Fprintf(&out, `"path":"%s",`, encodeBase64(joined(of.path)))
		}
		fmt.Fprintf(&out, `"position":%d,"signatures":[`, of.position)
		for i, each := range of.signatures {
			if i > 0 {
				out.WriteByte(',')
			}
			fmt.Fprintf(&out, `{"key":"%s","signature":"%s"}`, encodeBase64(each.key), encodeBase64(each.bytes))
		}
		out.WriteString(`]},`)
	}
	fmt.Fprintf(&out, `"submitter":"%s","type":"entry/1"}`, e.submitter)
	out.WriteByte('\n')
	out.Write(record)
	return out.Bytes(), nil
}

func joined(hashes []hash) []byte {
	var out []byte
	for _, each := range hashes {
		out = append(out, each[:]...)
	}
	return out
}

// entry is an entry that was read.
type entry struct {
	envelope envelope
	of       *membership
	record   []byte
}

type envelopeJSON struct {
	AcceptedAt    string `json:"accepted_at"`
	GoverningSize uint64 `json:"governing_size"`
	Submission    *struct {
		Count      int    `json:"count"`
		Path       []byte `json:"path"`
		Position   int    `json:"position"`
		Signatures []struct {
			Key       []byte `json:"key"`
			Signature []byte `json:"signature"`
		} `json:"signatures"`
	} `json:"submission"`
	Submitter string `json:"submitter"`
	Type      string `json:"type"`
}

// parseEntry reads an entry, and forms it again to see that it was spelt in the one way.
func parseEntry(data []byte) (entry, error) {
	head, record, found := bytes.Cut(data, []byte("\n"))
	var read envelopeJSON
	if !found || json.Unmarshal(head, &read) != nil {
		return entry{}, errors.New("entry: malformed")
	}
	parsed := entry{envelope{read.AcceptedAt, read.Submitter, read.GoverningSize}, nil, record}
	if read.Submission != nil {
		of := membership{count: read.Submission.Count, position: read.Submission.Position}
		for path := read.Submission.Path; len(path) > 0; path = path[len(hash{}):] {
			if len(path) < len(hash{}) {
				return entry{}, errors.New("entry: the path is not made of hashes")
			}
			of.path = append(of.path, hash(path))
		}
		for _, each := range read.Submission.Signatures {
			of.signatures = append(of.signatures, signature{each.Key, each.Signature})
		}
		parsed.of = &of
	}
	again, err := formEntry(parsed.envelope, parsed.of, record)
	if err != nil || !bytes.Equal(again, data) {
		return entry{}, errors.New("entry: not in its canonical form")
	}
	return parsed, nil
}

// verifySignatures checks that the record stands in a submission to this register that its signatures
// cover.
func (e entry) verifySignatures(registerOrigin string) error {
	if e.of == nil {
		return nil
	}
	if e.of.count < 1 || e.of.position < 0 || len(e.of.signatures) == 0 {
		return errors.New("entry: no place in a submission")
	}
	root, err := rootFromPath(uint64(e.of.position), uint64(e.of.count), leafHash(e.record), e.of.path)
	if err != nil {
		return fmt.Errorf("entry: %w", err)
	}
	body := submissionBody(registerOrigin, e.of.count, root)
	for _, each := range e.of.signatures {
		if err := each.verify(body); err != nil {
			return fmt.Errorf("entry: %w", err)
		}
	}
	return nil
}
