package main

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"strings"
)

const (
	receiptLine = "daybook.receipt/1\n"
	proofLine   = "c2sp.org/tlog-proof@v1\n"
)

// section is one named part of a receipt.
type section struct {
	name  string
	bytes []byte
}

// writeReceipt joins sections into a receipt file (docs/integrating.md, step 7).
func writeReceipt(sections []section) []byte {
	var out bytes.Buffer
	out.WriteString(receiptLine)
	for _, each := range sections {
		fmt.Fprintf(&out, "%s %d\n", each.name, len(each.bytes))
		out.Write(each.bytes)
		out.WriteByte('\n')
	}
	return out.Bytes()
}

// splitReceipt returns the sections of a receipt in their order.
func splitReceipt(data []byte) ([]section, error) {
	rest, found := bytes.CutPrefix(data, []byte(receiptLine))
	if !found {
		return nil, errors.New("receipt: of another kind")
	}
	var sections []section
	for len(rest) > 0 {
		line, after, _ := bytes.Cut(rest, []byte("\n"))
		name, number, _ := strings.Cut(string(line), " ")
		length, err := parseDecimal(number)
		if err != nil || length >= uint64(len(after)) || after[length] != '\n' {
			return nil, errors.New("receipt: malformed")
		}
		sections = append(sections, section{name, after[:length]})
		rest = after[length+1:]
	}
	return sections, nil
}

// writeProof joins an inclusion proof and its checkpoint note (C2SP tlog-proof).
func writeProof(index uint64, path []hash, note []byte) []byte {
	var out bytes.Buffer
	fmt.Fprintf(&out, "%sindex %d\n", proofLine, index)
	for _, each := range path {
		fmt.Fprintf(&out, "%s\n", encodeBase64(each[:]))
	}
	out.WriteByte('\n')
	out.Write(note)
	return out.Bytes()
}

// errUnsealed says that a checkpoint does not satisfy the policy, or not yet.
var errUnsealed = errors.New("too few witnesses of your policy have cosigned the checkpoint")

// provedEntry is an entry whose place in a register is proved under the policy.
type provedEntry struct {
	entry
	index      uint64
	checkpoint checkpoint
}

// verifyProof checks that an entry stands in a register where a tlog-proof says.
func (p *policy) verifyProof(data, proof []byte, registerOrigin string) (provedEntry, error) {
	head, note, found := bytes.Cut(proof, []byte("\n\n"))
	lines := strings.Split(string(head), "\n")
	if !found || len(lines) < 2 || lines[0]+"\n" != proofLine {
		return provedEntry{}, errors.New("proof: malformed")
	}
	number, found := strings.CutPrefix(lines[1], "index ")
	index, err := parseDecimal(number)
	if !found || err != nil {
		return provedEntry{}, errors.New("proof: no index")
	}
	var path []hash
	for _, line := range lines[2:] {
		each, err := decodeHash(line)
		if err != nil {
			return provedEntry{}, fmt.Errorf("proof: %w", err)
		}
		path = append(path, each)
	}
	opened, sealed, err := p.openCheckpoint(note, registerOrigin)
	if err != nil {
		return provedEntry{}, err
	}
	if !sealed {
		return provedEntry{}, fmt.Errorf("proof: %w", errUnsealed)
	}
	root, err := rootFromPath(index, opened.size, leafHash(data), path)
	if err != nil {
		return provedEntry{}, fmt.Errorf("proof: %w", err)
	}
	if root != opened.root {
		return provedEntry{}, errors.New("proof: does not lead to the checkpoint's root")
	}
	parsed, err := parseEntry(data)
	if err != nil {
		return provedEntry{}, err
	}
	return provedEntry{parsed, index, opened}, parsed.verifySignatures(registerOrigin)
}

// verifyReceipt checks the entry of a receipt, and returns it with the other sections, not yet checked.
func (p *policy) verifyReceipt(data []byte, registerOrigin string) (provedEntry, []section, error) {
	sections, err := splitReceipt(data)
	if err != nil {
		return provedEntry{}, nil, err
	}
	if len(sections) < 2 || sections[0].name != "entry" || sections[1].name != "proof" {
		return provedEntry{}, nil, errors.New("receipt: does not begin with an entry and its proof")
	}
	proved, err := p.verifyProof(sections[0].bytes, sections[1].bytes, registerOrigin)
	return proved, sections[2:], err
}

// verifyKeySections returns the key sections among a receipt's, once they show that this key was
// authorised for this department below the given governing size. None is no error.
func (p *policy) verifyKeySections(sections []section, key []byte, department string, below uint64) ([]section, error) {
	for i := range sections {
		if sections[i].name != "key-entry" || i+1 == len(sections) || sections[i+1].name != "key-proof" {
			continue
		}
		proved, err := p.verifyProof(sections[i].bytes, sections[i+1].bytes, p.ledgerOrigin+"/"+governing)
		if err != nil {
			return nil, fmt.Errorf("key-entry: %w", err)
		}
		var record struct{ Type, Department, Key string }
		if err := json.Unmarshal(proved.record, &record); err != nil {
			return nil, fmt.Errorf("key-entry: %w", err)
		}
		if record.Type != "key.authorised/1" || record.Department != department || record.Key != encodeBase64(key) ||
			proved.index >= below {
			return nil, errors.New("key-entry: authorises another key, or for another department, or later")
		}
		return sections[i : i+2], nil
	}
	return nil, nil
}
