// Checkproof checks that an entry is in a log, offline: with the proof format, the witness policy and the
// cosignatures of github.com/transparency-dev/formats, and the tree of github.com/transparency-dev/merkle.
//
//	checkproof POLICY VKEY ENTRY PROOF
//
// POLICY is a witness policy file, VKEY the log's key, ENTRY the entry's bytes, PROOF a file of the form
// c2sp.org/tlog-proof. Prints "entry INDEX of SIZE". Exit status 1 when anything does not hold, and why on stderr.
package main

import (
	"errors"
	"fmt"
	"os"

	"github.com/transparency-dev/formats/log"
	f_note "github.com/transparency-dev/formats/note"
	"github.com/transparency-dev/formats/proof"
	"github.com/transparency-dev/formats/witness"
	merkle "github.com/transparency-dev/merkle/proof"
	"github.com/transparency-dev/merkle/rfc6962"
)

func main() {
	if len(os.Args) != 5 {
		fmt.Fprintln(os.Stderr, "usage: checkproof POLICY VKEY ENTRY PROOF")
		os.Exit(2)
	}
	index, size, err := check(os.Args[1], os.Args[2], os.Args[3], os.Args[4])
	if err != nil {
		fmt.Fprintln(os.Stderr, "checkproof:", err)
		os.Exit(1)
	}
	fmt.Printf("entry %d of %d\n", index, size)
}

func check(policyFile, vkey, entryFile, proofFile string) (index, size uint64, err error) {
	policyText, err := os.ReadFile(policyFile)
	if err != nil {
		return 0, 0, err
	}
	entry, err := os.ReadFile(entryFile)
	if err != nil {
		return 0, 0, err
	}
	data, err := os.ReadFile(proofFile)
	if err != nil {
		return 0, 0, err
	}
	policy, err := witness.ParsePolicy(policyText)
	if err != nil {
		return 0, 0, err
	}
	verifier, err := f_note.NewVerifier(vkey)
	if err != nil {
		return 0, 0, err
	}
	var parsed proof.TLogProof
	if err := parsed.Unmarshal(data); err != nil {
		return 0, 0, err
	}
	checkpoint, _, _, err := log.ParseCheckpoint(parsed.Checkpoint, verifier.Name(), verifier)
	if err != nil {
		return 0, 0, err
	}
	if !policy.Satisfied(parsed.Checkpoint) {
		return 0, 0, errors.New("the witnesses' quorum is not met")
	}
	path := make([][]byte, len(parsed.Hashes))
	for i := range parsed.Hashes {
		path[i] = parsed.Hashes[i][:]
	}
	leaf := rfc6962.DefaultHasher.HashLeaf(entry)
	return parsed.Index, checkpoint.Size, merkle.VerifyInclusion(
		rfc6962.DefaultHasher, parsed.Index, checkpoint.Size, leaf, path, checkpoint.Hash)
}
