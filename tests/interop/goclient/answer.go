package main

import (
	"encoding/json"
	"errors"
	"fmt"
	"strings"

	submissionv1 "daybook.example/goclient/gen/submissionv1"
)

// acknowledgementKey returns the key that signs acknowledgements: the ledger's first governing entry names
// it, proved under the policy (docs/integrating.md, step 2).
func acknowledgementKey(p *policy, receipt []byte) (verifierKey, error) {
	proved, _, err := p.verifyReceipt(receipt, p.ledgerOrigin+"/"+governing)
	if err != nil {
		return verifierKey{}, err
	}
	var record struct {
		Type               string
		Origin             string
		AcknowledgementKey string `json:"acknowledgement_key"`
	}
	if err := json.Unmarshal(proved.record, &record); err != nil {
		return verifierKey{}, err
	}
	if proved.index != 0 || record.Type != "ledger.opened/1" || record.Origin != p.ledgerOrigin {
		return verifierKey{}, errors.New("governing entry 0 does not open this ledger")
	}
	key, err := parseVerifierKey(record.AcknowledgementKey)
	if err != nil || key.kind != typeEd25519 || key.name != p.ledgerOrigin+"/acknowledgements" {
		return verifierKey{}, errors.New("governing entry 0 names no acknowledgement key")
	}
	return key, nil
}

// verifyAcknowledgement checks that a note promises just this submission (docs/integrating.md, step 6).
func (s submission) verifyAcknowledgement(note []byte, key verifierKey) error {
	text, _, err := openNote(note, []verifierKey{key})
	if err != nil {
		return fmt.Errorf("acknowledgement: %w", err)
	}
	promised := fmt.Sprintf("daybook.acknowledgement/1\n%s\n%s\n%d\n", s.origin, s.id, len(s.records))
	acceptedAt, found := strings.CutPrefix(string(text), promised)
	if !found || !acceptedAtForm.MatchString(strings.TrimSuffix(acceptedAt, "\n")) || !strings.HasSuffix(acceptedAt, "Z\n") {
		return errors.New("acknowledgement: promises another submission")
	}
	return nil
}

// registered is what an answer proved: these entries stand in the register from this index.
type registered struct {
	entries    [][]byte
	paths      [][]hash
	firstIndex uint64
	checkpoint checkpoint
	note       []byte
	sealed     bool
}

// errPending says that the ledger has promised, and that there is no proof yet.
var errPending = errors.New("acknowledged, with no proof yet: send the very same submission again")

// verifyAnswer checks all that the ledger answered (docs/integrating.md, step 6). Nothing is believed before.
func (p *policy) verifyAnswer(
	s submission, signed signature, answer *submissionv1.Acknowledgement, key verifierKey,
) (registered, error) {
	if err := s.verifyAcknowledgement(answer.GetNote(), key); err != nil {
		return registered{}, err
	}
	if len(answer.GetCheckpoint()) == 0 {
		return registered{}, errPending
	}
	opened, satisfied, err := p.openCheckpoint(answer.GetCheckpoint(), s.origin)
	if err != nil {
		return registered{}, err
	}
	if !satisfied {
		return registered{}, errPending
	}
	said := answer.GetEnvelope()
	ledgers := envelope{said.GetAcceptedAt(), said.GetSubmitter(), said.GetGoverningSize()}
	entries := make([][]byte, len(s.records))
	leaves := make([]hash, len(s.records))
	for i, record := range s.records {
		of := membership{len(s.records), i, s.paths[i], []signature{signed}}
		if entries[i], err = formEntry(ledgers, &of, record); err != nil {
			return registered{}, err
		}
		leaves[i] = leafHash(entries[i])
	}
	paths, err := verifyRange(answer.GetFirstIndex(), opened.size, leaves, answer.GetRangeProof().GetHashes(), opened.root)
	if err != nil {
		return registered{}, err
	}
	return registered{entries, paths, answer.GetFirstIndex(), opened, answer.GetCheckpoint(), satisfied && p.quorum != "none"}, nil
}

// receipts returns the receipt file of each record, in order; the key sections may be none.
func (r registered) receipts(keySections []section) [][]byte {
	files := make([][]byte, len(r.entries))
	for i, each := range r.entries {
		proof := writeProof(r.firstIndex+uint64(i), r.paths[i], r.note)
		files[i] = writeReceipt(append([]section{{"entry", each}, {"proof", proof}}, keySections...))
	}
	return files
}

// verifyRejection checks that an entry of the register says that this submission was rejected, and why.
func (p *policy) verifyRejection(s submission, receipt []byte) (string, error) {
	proved, _, err := p.verifyReceipt(receipt, s.origin)
	if err != nil {
		return "", err
	}
	var record struct {
		Type         string
		SubmissionID string `json:"submission_id"`
		Reason       string
	}
	if err := json.Unmarshal(proved.record, &record); err != nil {
		return "", err
	}
	if proved.of != nil || record.Type != "submission.rejected/1" || record.SubmissionID != s.id {
		return "", errors.New("the entry named does not reject this submission")
	}
	return record.Reason, nil
}
