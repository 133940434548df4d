// Opennote opens a signed note with Go's own package, golang.org/x/mod/sumdb/note: the code that the go command
// trusts the checksum database by.
//
//	opennote VKEY < note
//
// Prints the text that was signed. Exit status 1 when the note does not open, and why on stderr.
package main

import (
	"fmt"
	"io"
	"os"

	"golang.org/x/mod/sumdb/note"
)

func main() {
	text, err := open(os.Args[1:])
	if err != nil {
		fmt.Fprintln(os.Stderr, "opennote:", err)
		os.Exit(1)
	}
	fmt.Print(text)
}

func open(vkeys []string) (string, error) {
	if len(vkeys) != 1 {
		return "", fmt.Errorf("usage: opennote VKEY < note")
	}
	verifier, err := note.NewVerifier(vkeys[0])
	if err != nil {
		return "", err
	}
	data, err := io.ReadAll(os.Stdin)
	if err != nil {
		return "", err
	}
	opened, err := note.Open(data, note.VerifierList(verifier))
	if err != nil {
		return "", err
	}
	return opened.Text, nil
}
