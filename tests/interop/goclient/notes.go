package main

import (
	"bytes"
	"crypto/ed25519"
	"crypto/sha256"
	"encoding/base64"
	"encoding/binary"
	"encoding/hex"
	"errors"
	"fmt"
	"strings"
	"unicode"
	"unicode/utf8"
)

// Types of note signatures (C2SP signed-note).
const (
	typeEd25519     = 0x01
	typeCosignature = 0x04
)

const (
	maxNote           = 1_000_000
	maxSignatureLines = 100
	emDash            = "\u2014 "
)

// verifierKey is a key that notes are verified with.
type verifierKey struct {
	name   string
	kind   byte
	public ed25519.PublicKey
}

// parseVerifierKey reads "<name>+<8 hex digits>+<base64 of type and key>", and compares the key ID.
func parseVerifierKey(text string) (verifierKey, error) {
	parts := strings.SplitN(text, "+", 3)
	if len(parts) != 3 || !validKeyName(parts[0]) {
		return verifierKey{}, fmt.Errorf("%q is not a verifier key", text)
	}
	data, err := decodeBase64(parts[2])
	if err != nil || len(data) != 33 || (data[0] != typeEd25519 && data[0] != typeCosignature) {
		return verifierKey{}, fmt.Errorf("%q is not an Ed25519 verifier key", text)
	}
	key := verifierKey{parts[0], data[0], data[1:]}
	if fmt.Sprintf("%08x", key.id()) != parts[1] {
		return verifierKey{}, fmt.Errorf("%q has another key ID than its own", text)
	}
	return key, nil
}

// id is the first four bytes of SHA-256(name LF type key).
func (k verifierKey) id() uint32 {
	sum := sha256.Sum256([]byte(k.name + "\n" + string([]byte{k.kind}) + string(k.public)))
	return binary.BigEndian.Uint32(sum[:4])
}

// named returns the same key under another name: the ledger signs every register's checkpoints with one.
func (k verifierKey) named(name string) verifierKey {
	return verifierKey{name, k.kind, k.public}
}

// verify checks the bytes that follow the key ID in a signature line.
func (k verifierKey) verify(text, signature []byte) bool {
	message := text
	if k.kind == typeCosignature {
		if len(signature) < 8 || signature[0]&0x80 != 0 {
			return false
		}
		time := binary.BigEndian.Uint64(signature)
		message = []byte(fmt.Sprintf("cosignature/v1\ntime %d\n%s", time, text))
		signature = signature[8:]
	}
	return len(signature) == ed25519.SignatureSize && ed25519.Verify(k.public, message, signature)
}

// parseSecretKey reads the file that `daybook keygen` writes:
// "PRIVATE+KEY+<name>+<8 hex digits>+<base64 of 0x01 and the seed>".
func parseSecretKey(text string) (ed25519.PrivateKey, error) {
	rest, found := strings.CutPrefix(strings.TrimSpace(text), "PRIVATE+KEY+")
	parts := strings.SplitN(rest, "+", 3)
	if !found || len(parts) != 3 {
		return nil, errors.New("not a secret key file")
	}
	data, err := decodeBase64(parts[2])
	if err != nil || len(data) != 1+ed25519.SeedSize || data[0] != typeEd25519 {
		return nil, errors.New("not an Ed25519 secret key")
	}
	key := ed25519.NewKeyFromSeed(data[1:])
	public := verifierKey{parts[0], typeEd25519, key.Public().(ed25519.PublicKey)}
	if fmt.Sprintf("%08x", public.id()) != parts[1] {
		return nil, errors.New("the secret key has another key ID than its own")
	}
	return key, nil
}

// signatureLine is one line below a note's text.
type signatureLine struct {
	name      string
	id        uint32
	signature []byte
}

// openNote splits a signed note, and returns its text with the keys that signed it, each once.
//
// One bad signature of a known key refuses the whole note, and so does a note that no known key has signed.
// Lines of unknown keys are passed over.
func openNote(note []byte, keys []verifierKey) ([]byte, []verifierKey, error) {
	text, lines, err := splitNote(note)
	if err != nil {
		return nil, nil, err
	}
	var signers []verifierKey
	seen := map[string]bool{}
	for _, line := range lines {
		for _, key := range keys {
			id := fmt.Sprintf("%s+%08x", key.name, key.id())
			if line.name != key.name || line.id != key.id() || seen[id] {
				continue
			}
			if !key.verify(text, line.signature) {
				return nil, nil, fmt.Errorf("note: the signature of %s does not verify", key.name)
			}
			seen[id] = true
			signers = append(signers, key)
		}
	}
	if len(signers) == 0 {
		return nil, nil, errors.New("note: no known key has signed it")
	}
	return text, signers, nil
}

// splitNote applies the grammar of C2SP signed-note; the signed text is returned as it was received.
func splitNote(note []byte) ([]byte, []signatureLine, error) {
	if len(note) > maxNote || !utf8.Valid(note) {
		return nil, nil, errors.New("note: too large, or not UTF-8")
	}
	for _, b := range note {
		if b < 0x20 && b != '\n' {
			return nil, nil, errors.New("note: holds a control character")
		}
	}
	end := bytes.LastIndex(note, []byte("\n\n"))
	if end < 0 || end+2 == len(note) || note[len(note)-1] != '\n' {
		return nil, nil, errors.New("note: not a text and signatures")
	}
	rows := strings.Split(strings.TrimSuffix(string(note[end+2:]), "\n"), "\n")
	if len(rows) > maxSignatureLines {
		return nil, nil, errors.New("note: too many signatures")
	}
	lines := make([]signatureLine, 0, len(rows))
	for _, row := range rows {
		rest, found := strings.CutPrefix(row, emDash)
		name, encoded, two := strings.Cut(rest, " ")
		data, err := decodeBase64(encoded)
		if !found || !two || !validKeyName(name) || err != nil || len(data) < 5 {
			return nil, nil, errors.New("note: a signature line is malformed")
		}
		lines = append(lines, signatureLine{name, binary.BigEndian.Uint32(data), data[4:]})
	}
	return note[:end+1], lines, nil
}

func validKeyName(name string) bool {
	return name != "" && utf8.ValidString(name) && !strings.ContainsFunc(name, unicode.IsSpace) &&
		!strings.Contains(name, "+")
}

// checkpoint is what a register's signed note says of its tree.
type checkpoint struct {
	origin string
	size   uint64
	root   hash
}

// parseCheckpoint reads a checkpoint's text: origin, size, root; extension lines may follow.
func parseCheckpoint(text []byte) (checkpoint, error) {
	malformed := errors.New("checkpoint: malformed")
	lines := strings.Split(strings.TrimSuffix(string(text), "\n"), "\n")
	if len(lines) < 3 {
		return checkpoint{}, malformed
	}
	for _, line := range lines {
		if line == "" {
			return checkpoint{}, malformed
		}
	}
	size, err := parseDecimal(lines[1])
	if err != nil {
		return checkpoint{}, malformed
	}
	root, err := decodeHash(lines[2])
	if err != nil || (size == 0 && root != hash(sha256.Sum256(nil))) {
		return checkpoint{}, malformed
	}
	return checkpoint{lines[0], size, root}, nil
}

// decodeHash reads the base64 of 32 bytes.
func decodeHash(text string) (hash, error) {
	data, err := decodeBase64(text)
	if err != nil || len(data) != len(hash{}) {
		return hash{}, fmt.Errorf("%q is not the base64 of a hash", text)
	}
	return hash(data), nil
}

// decodeBase64 reads RFC 4648, section 4, in its one canonical spelling.
func decodeBase64(text string) ([]byte, error) {
	data, err := base64.StdEncoding.DecodeString(text)
	if err == nil && base64.StdEncoding.EncodeToString(data) != text {
		err = errors.New("base64 is not canonical")
	}
	return data, err
}

func encodeBase64(data []byte) string { return base64.StdEncoding.EncodeToString(data) }

func encodeHex(data []byte) string { return hex.EncodeToString(data) }
