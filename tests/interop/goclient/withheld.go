package main

import (
	"crypto/rand"
	"crypto/sha256"
	"fmt"
)

// disclosure opens withheld fields of one record version: whoever is shown it can see that the value is the
// one registered. It never goes to the ledger.
type disclosure struct {
	Disclosures []opening `json:"disclosures"`
	RecordID    string    `json:"record_id"`
	Register    string    `json:"register"`
	Type        string    `json:"type"`
	Version     uint64    `json:"version"`
}

type opening struct {
	Path  string `json:"path"`
	Salt  string `json:"salt"`
	Value any    `json:"value"`
}

type withheldField struct {
	disclosure
	digest string
}

// withhold draws a fresh salt, and returns the digest that stands for a value (docs/integrating.md,
// "Withheld fields").
func withhold(registerOrigin, register, recordID string, version uint64, path string, value any) (withheldField, error) {
	salt := make([]byte, 32)
	if _, err := rand.Read(salt); err != nil {
		return withheldField{}, err
	}
	digest, err := withheldDigest(registerOrigin, recordID, version, path, salt, value)
	if err != nil {
		return withheldField{}, err
	}
	open := []opening{{path, encodeHex(salt), value}}
	return withheldField{disclosure{open, recordID, register, "disclosure/1", version}, digest}, nil
}

func withheldDigest(registerOrigin, recordID string, version uint64, path string, salt []byte, value any) (string, error) {
	encoded, err := canonicalJSON(value)
	if err != nil {
		return "", err
	}
	head := fmt.Sprintf("daybook.withheld/1\n%s\n%s\n%d\n%s\n", registerOrigin, recordID, version, path)
	digest := sha256.Sum256([]byte(head + string(salt) + string(encoded)))
	return encodeHex(digest[:]), nil
}
