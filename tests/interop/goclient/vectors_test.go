package main

import (
	"bytes"
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"fmt"
	"os"
	"path/filepath"
	"testing"
)

// The vectors of formats.md, shared with the Python tests.
const vectors = "../../vectors"

func load(t *testing.T, name string, into any) {
	t.Helper()
	if err := json.Unmarshal(read(t, name), into); err != nil {
		t.Fatal(err)
	}
}

func read(t *testing.T, name string) []byte {
	t.Helper()
	data, err := os.ReadFile(filepath.Join(vectors, name))
	if err != nil {
		t.Fatal(err)
	}
	return data
}

func vectorPolicy(t *testing.T) policy {
	t.Helper()
	p, err := readPolicy(filepath.Join(vectors, "policy"))
	if err != nil {
		t.Fatal(err)
	}
	return p
}

func unhex(t *testing.T, text string) []byte {
	t.Helper()
	data, err := hex.DecodeString(text)
	if err != nil {
		t.Fatal(err)
	}
	return data
}

type rangeProofs struct {
	Cases []struct {
		First, End, Size uint64
		Leaves, Hashes   []string
		Root             string
		Valid            bool
	}
	Check struct{ SHA256 string }
}

func TestRangeProofsAreJudgedAsTheVectorsSay(t *testing.T) {
	var file rangeProofs
	load(t, "range-proofs.json", &file)
	for i, each := range file.Cases {
		var leaves []hash
		for _, leaf := range each.Leaves {
			leaves = append(leaves, hash(unhex(t, leaf)))
		}
		var proof [][]byte
		for _, one := range each.Hashes {
			proof = append(proof, unhex(t, one))
		}
		_, err := verifyRange(each.First, each.Size, leaves, proof, hash(unhex(t, each.Root)))
		valid := err == nil && each.End-each.First == uint64(len(leaves))
		if valid != each.Valid {
			t.Errorf("case %d: valid %v, not %v: %v", i, valid, each.Valid, err)
		}
	}
}

func TestEveryRangeOfEveryTreeToSize40IsProvedWithItsPaths(t *testing.T) {
	var file rangeProofs
	load(t, "range-proofs.json", &file)
	all := sha256.New()
	for size := uint64(1); size <= 40; size++ {
		leaves := make([]hash, size)
		for i := range leaves {
			leaves[i] = leafHash([]byte(fmt.Sprintf("daybook-entry-%d", i)))
		}
		tree := subtrees{}
		root, paths, err := verified(tree, span{0, size}, 0, leaves)
		if err != nil {
			t.Fatal(err)
		}
		for begin := uint64(0); begin < size; begin++ {
			for end := begin + 1; end <= size; end++ {
				fmt.Fprintf(all, "R %d %d %d", begin, end, size)
				var proof [][]byte
				for _, block := range append(compactRange(span{0, begin}), compactRange(span{end, size})...) {
					one, err := tree.root(block)
					if err != nil {
						t.Fatal(err)
					}
					fmt.Fprintf(all, " %x", one)
					proof = append(proof, append([]byte{}, one[:]...))
				}
				fmt.Fprintln(all)
				found, err := verifyRange(begin, size, leaves[begin:end], proof, root)
				if err != nil {
					t.Fatal(err)
				}
				for i := range found {
					if !bytes.Equal(joined(found[i]), joined(paths[begin+uint64(i)])) {
						t.Fatalf("path of %d in %d", begin+uint64(i), size)
					}
				}
			}
		}
	}
	if sum := hex.EncodeToString(all.Sum(nil)); sum != file.Check.SHA256 {
		t.Errorf("all range proofs hash to %s", sum)
	}
}

type submissionsFile struct {
	Submissions []struct {
		Name, Register string
		Records        []string
		Leaves         []string
		Body           string
		PAE            string `json:"pae_hex"`
		ID             string `json:"submission_id"`
		Signatures     []struct{ Key, Signature []byte }
		Entries        []string
	}
	PathCheck struct{ SHA256 string } `json:"path_check"`
}

func TestSubmissionsAndEntriesHaveTheBytesOfTheVectors(t *testing.T) {
	var file submissionsFile
	load(t, "submissions.json", &file)
	p := vectorPolicy(t)
	for _, each := range file.Submissions {
		var records [][]byte
		for i, record := range each.Records {
			records = append(records, []byte(record))
			if leaf := leafHash([]byte(record)); encodeHex(leaf[:]) != each.Leaves[i] {
				t.Errorf("%s: leaf %d is %x", each.Name, i, leaf)
			}
		}
		s, err := newSubmission(p.ledgerOrigin+"/"+each.Register, records)
		if err != nil {
			t.Fatal(err)
		}
		if string(s.body) != each.Body || encodeHex(preAuthentication(s.body)) != each.PAE || s.id != each.ID {
			t.Errorf("%s: body %q", each.Name, s.body)
		}
		var signatures []signature
		for _, one := range each.Signatures {
			signatures = append(signatures, signature{one.Key, one.Signature})
			if err := signatures[len(signatures)-1].verify(s.body); err != nil {
				t.Errorf("%s: %v", each.Name, err)
			}
		}
		for i, data := range each.Entries {
			parsed, err := parseEntry([]byte(data))
			if err != nil {
				t.Fatal(err)
			}
			formed, err := formEntry(parsed.envelope, &membership{len(records), i, s.paths[i], signatures}, records[i])
			if err != nil || string(formed) != data {
				t.Errorf("%s: entry %d is %s", each.Name, i, formed)
			}
			if err := parsed.verifySignatures(s.origin); err != nil {
				t.Errorf("%s: entry %d: %v", each.Name, i, err)
			}
			if err := parsed.verifySignatures(p.ledgerOrigin + "/access"); err == nil {
				t.Errorf("%s: entry %d verifies for another register", each.Name, i)
			}
		}
	}
}

func TestThePathsOfEverySubmissionTreeTo130AreThoseOfTheVectors(t *testing.T) {
	var file submissionsFile
	load(t, "submissions.json", &file)
	all := sha256.New()
	for size := 1; size <= 130; size++ {
		leaves := make([]hash, size)
		for i := range leaves {
			leaves[i] = leafHash([]byte(fmt.Sprintf("record-%d", i)))
		}
		root, paths, err := submissionTree(leaves)
		if err != nil {
			t.Fatal(err)
		}
		for i, path := range paths {
			fmt.Fprintf(all, "P %d %d", i, size)
			for _, one := range path {
				fmt.Fprintf(all, " %x", one)
			}
			fmt.Fprintln(all)
			if found, err := rootFromPath(uint64(i), uint64(size), leaves[i], path); err != nil || found != root {
				t.Fatalf("path of %d in %d: %v", i, size, err)
			}
		}
	}
	if sum := hex.EncodeToString(all.Sum(nil)); sum != file.PathCheck.SHA256 {
		t.Errorf("all paths hash to %s", sum)
	}
}

func TestEveryCheckpointOfTheVectorsIsSealedUnderThePolicy(t *testing.T) {
	var checkpoints []struct {
		Register, Note string
		Size           uint64
	}
	load(t, "checkpoints.json", &checkpoints)
	p := vectorPolicy(t)
	for _, each := range checkpoints {
		opened, sealed, err := p.openCheckpoint([]byte(each.Note), p.ledgerOrigin+"/"+each.Register)
		if err != nil || !sealed || opened.size != each.Size {
			t.Errorf("%s at %d: sealed %v, size %d: %v", each.Register, each.Size, sealed, opened.size, err)
		}
		if _, _, err := p.openCheckpoint([]byte(each.Note), p.ledgerOrigin+"/another/register"); err == nil {
			t.Errorf("%s at %d opens for another register", each.Register, each.Size)
		}
	}
}

func TestTheAcknowledgementPromisesItsSubmissionAndNoOther(t *testing.T) {
	var keys struct{ Vkeys map[string]string }
	load(t, "keys.json", &keys)
	key, err := parseVerifierKey(keys.Vkeys["acknowledgements"])
	if err != nil {
		t.Fatal(err)
	}
	var file submissionsFile
	load(t, "submissions.json", &file)
	note := read(t, "acknowledgement.note")
	promised := 0
	for _, each := range file.Submissions {
		var records [][]byte
		for _, record := range each.Records {
			records = append(records, []byte(record))
		}
		s, err := newSubmission(vectorPolicy(t).ledgerOrigin+"/"+each.Register, records)
		if err != nil {
			t.Fatal(err)
		}
		if s.verifyAcknowledgement(note, key) == nil {
			promised++
		}
	}
	if promised != 1 {
		t.Errorf("the note promises %d submissions", promised)
	}
	for i := range note {
		changed := append([]byte{}, note...)
		changed[i] ^= 1
		if _, _, err := openNote(changed, []verifierKey{key}); err == nil {
			t.Errorf("the note verifies with byte %d changed", i)
		}
	}
}

func TestReceiptsOfTheVectorsVerifyAndNoChangedByteOfTheEntryDoes(t *testing.T) {
	var receipts struct {
		Cases []struct {
			File, Verdict string
			Index         uint64
		}
	}
	load(t, "receipts.json", &receipts)
	p := vectorPolicy(t)
	verified := 0
	for _, each := range receipts.Cases {
		if each.Verdict != "verified" {
			continue
		}
		data := read(t, each.File)
		register := "department-for-synthetic-affairs/secretary-of-state"
		if filepath.Base(each.File) == "governing.receipt" {
			register = governing
		}
		proved, others, err := p.verifyReceipt(data, p.ledgerOrigin+"/"+register)
		if err != nil || proved.index != each.Index {
			t.Errorf("%s: index %d: %v", each.File, proved.index, err)
			continue
		}
		if proved.of != nil && register != governing {
			signer := proved.of.signatures[0].key
			if _, err := p.verifyKeySections(others, signer, "department-for-synthetic-affairs", proved.envelope.governingSize); err != nil {
				t.Errorf("%s: %v", each.File, err)
			}
			sections, _ := p.verifyKeySections(others, signer, "another-department", proved.envelope.governingSize)
			if sections != nil {
				t.Errorf("%s: authorises a key for another department", each.File)
			}
		}
		sections, err := splitReceipt(data)
		if err != nil || !bytes.Equal(writeReceipt(sections), data) {
			t.Errorf("%s: written again it differs: %v", each.File, err)
		}
		start := bytes.Index(data, sections[0].bytes)
		for i := start; i < start+len(sections[0].bytes); i++ {
			changed := append([]byte{}, data...)
			changed[i] ^= 1
			if _, _, err := p.verifyReceipt(changed, p.ledgerOrigin+"/"+register); err == nil {
				t.Errorf("%s verifies with byte %d changed", each.File, i)
			}
		}
		verified++
	}
	if verified < 6 {
		t.Errorf("only %d receipts verified", verified)
	}
}

func TestWithheldDigestsAreThoseOfTheVectors(t *testing.T) {
	var fields []struct {
		Record, Path, Digest string
		Value                any
		Salt                 string `json:"salt_hex"`
		Preimage             string `json:"preimage_hex"`
	}
	load(t, "withheld.json", &fields)
	origin := "ledger.daybook.example/department-for-synthetic-affairs/secretary-of-state"
	for _, each := range fields {
		var record struct {
			RecordID string `json:"record_id"`
			Version  uint64
		}
		load(t, "records/"+each.Record+".json", &record)
		digest, err := withheldDigest(origin, record.RecordID, record.Version, each.Path, unhex(t, each.Salt), each.Value)
		if err != nil || digest != each.Digest {
			t.Errorf("%s of %s: %s: %v", each.Path, each.Record, digest, err)
		}
	}
}
