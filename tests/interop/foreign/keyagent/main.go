// Keyagent is the SSH agent that litewitness asks for signatures: an agent of golang.org/x/crypto with one key in
// it, so that nothing of OpenSSH has to be installed.
//
//	keyagent SOCKET KEYFILE
//
// KEYFILE is a signer key of golang.org/x/mod/sumdb/note, as `daybook keygen` writes. Prints the key's SSH
// fingerprint once it listens. Ends when its stdin does, so that it never outlives the test that started it.
package main

import (
	"crypto/ed25519"
	"encoding/base64"
	"fmt"
	"io"
	"net"
	"os"
	"strings"

	"golang.org/x/crypto/ssh"
	"golang.org/x/crypto/ssh/agent"
)

func main() {
	if err := serve(os.Args[1:]); err != nil {
		fmt.Fprintln(os.Stderr, "keyagent:", err)
		os.Exit(1)
	}
}

func serve(arguments []string) error {
	if len(arguments) != 2 {
		return fmt.Errorf("usage: keyagent SOCKET KEYFILE")
	}
	key, err := readKey(arguments[1])
	if err != nil {
		return err
	}
	signer, err := ssh.NewSignerFromKey(key)
	if err != nil {
		return err
	}
	keyring := agent.NewKeyring()
	if err := keyring.Add(agent.AddedKey{PrivateKey: key}); err != nil {
		return err
	}
	listener, err := net.Listen("unix", arguments[0])
	if err != nil {
		return err
	}
	fmt.Println(ssh.FingerprintSHA256(signer.PublicKey()))
	go answer(listener, keyring)
	_, err = io.Copy(io.Discard, os.Stdin)
	return err
}

func answer(listener net.Listener, keyring agent.Agent) {
	for {
		connection, err := listener.Accept()
		if err != nil {
			return
		}
		go agent.ServeAgent(keyring, connection)
	}
}

func readKey(path string) (ed25519.PrivateKey, error) {
	text, err := os.ReadFile(path)
	if err != nil {
		return nil, err
	}
	parts := strings.SplitN(strings.TrimSpace(string(text)), "+", 5)
	if len(parts) != 5 || parts[0] != "PRIVATE" || parts[1] != "KEY" {
		return nil, fmt.Errorf("%s: not a signer key", path)
	}
	key, err := base64.StdEncoding.DecodeString(parts[4])
	if err != nil || len(key) != 1+ed25519.SeedSize || key[0] != 1 {
		return nil, fmt.Errorf("%s: not an Ed25519 seed", path)
	}
	return ed25519.NewKeyFromSeed(key[1:]), nil
}
