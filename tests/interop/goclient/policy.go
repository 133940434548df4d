package main

import (
	"errors"
	"fmt"
	"os"
	"strconv"
	"strings"
)

// policy is what a verifier trusts: the ledger's key, its witnesses, and how many of them are needed
// (C2SP tlog-policy; docs/integrating.md, step 1). It comes from a file of the verifier's own.
type policy struct {
	ledgerOrigin string
	logs         []verifierKey
	witnesses    map[string]verifierKey
	groups       map[string]group
	quorum       string
}

type group struct {
	threshold int
	members   []string
}

const governing = "governing"

// readPolicy reads a policy file. It must name one ledger, by the vkey of its governing register.
func readPolicy(path string) (policy, error) {
	data, err := os.ReadFile(path)
	if err != nil {
		return policy{}, err
	}
	p := policy{witnesses: map[string]verifierKey{}, groups: map[string]group{}}
	for number, line := range strings.Split(string(data), "\n") {
		fields := strings.FieldsFunc(line, func(r rune) bool { return r == ' ' || r == '\t' })
		if len(fields) == 0 || strings.HasPrefix(fields[0], "#") {
			continue
		}
		if err := p.add(fields); err != nil {
			return policy{}, fmt.Errorf("%s, line %d: %w", path, number+1, err)
		}
	}
	if p.quorum == "" || p.ledgerOrigin == "" {
		return policy{}, fmt.Errorf("%s: needs one ledger (log <origin>/governing+…) and one quorum line", path)
	}
	return p, nil
}

func (p *policy) add(fields []string) error {
	switch {
	case fields[0] == "log" && (len(fields) == 2 || len(fields) == 3):
		return p.addLog(fields[1])
	case fields[0] == "witness" && (len(fields) == 3 || len(fields) == 4):
		return p.addWitness(fields[1], fields[2])
	case fields[0] == "group" && len(fields) > 3:
		return p.addGroup(fields[1], fields[2], fields[3:])
	case fields[0] == "quorum" && len(fields) == 2 && p.quorum == "":
		if fields[1] != "none" && !p.defined(fields[1]) {
			return fmt.Errorf("%s is not defined", fields[1])
		}
		p.quorum = fields[1]
		return nil
	}
	return errors.New("not a line of a policy")
}

func (p *policy) addLog(text string) error {
	key, err := parseVerifierKey(text)
	if err != nil {
		return err
	}
	origin, isGoverning := strings.CutSuffix(key.name, "/"+governing)
	if !isGoverning || key.kind != typeEd25519 {
		return fmt.Errorf("%s is not the key of a governing register", key.name)
	}
	if p.ledgerOrigin != "" && p.ledgerOrigin != origin {
		return errors.New("a second ledger")
	}
	p.ledgerOrigin = origin
	p.logs = append(p.logs, key)
	return nil
}

func (p *policy) addWitness(name, text string) error {
	key, err := parseVerifierKey(text)
	if err != nil {
		return err
	}
	if p.defined(name) || name == "none" || key.kind != typeCosignature {
		return fmt.Errorf("witness %s: the name is taken, or the key is of another type", name)
	}
	for _, other := range p.witnesses {
		if string(other.public) == string(key.public) {
			return fmt.Errorf("witness %s: the key of another witness", name)
		}
	}
	p.witnesses[name] = key
	return nil
}

func (p *policy) addGroup(name, threshold string, members []string) error {
	needed := len(members)
	switch threshold {
	case "all":
	case "any":
		needed = 1
	default:
		number, err := strconv.Atoi(threshold)
		if err != nil || strconv.Itoa(number) != threshold || number < 1 || number > len(members) {
			return fmt.Errorf("group %s: not a threshold: %s", name, threshold)
		}
		needed = number
	}
	if p.defined(name) || name == "none" {
		return fmt.Errorf("group %s: the name is taken", name)
	}
	taken := map[string]bool{}
	for _, other := range p.groups {
		for _, member := range other.members {
			taken[member] = true
		}
	}
	for _, member := range members {
		if !p.defined(member) || taken[member] {
			return fmt.Errorf("group %s: %s is not defined, or already in a group", name, member)
		}
		taken[member] = true
	}
	p.groups[name] = group{needed, members}
	return nil
}

func (p *policy) defined(name string) bool {
	_, isWitness := p.witnesses[name]
	_, isGroup := p.groups[name]
	return isWitness || isGroup
}

// holds tells whether a witness or group of the policy has signed.
func (p *policy) holds(name string, signed func(verifierKey) bool) bool {
	if key, isWitness := p.witnesses[name]; isWitness {
		return signed(key)
	}
	count := 0
	for _, member := range p.groups[name].members {
		if p.holds(member, signed) {
			count++
		}
	}
	return count >= p.groups[name].threshold
}

// openCheckpoint returns the checkpoint of a register's origin once the ledger's key has signed it, and
// tells whether the quorum of witnesses is met.
func (p *policy) openCheckpoint(note []byte, origin string) (checkpoint, bool, error) {
	var logs, keys []verifierKey
	for _, log := range p.logs {
		logs = append(logs, log.named(origin))
	}
	keys = append(keys, logs...)
	for _, witness := range p.witnesses {
		keys = append(keys, witness)
	}
	text, signers, err := openNote(note, keys)
	if err != nil {
		return checkpoint{}, false, fmt.Errorf("checkpoint: %w", err)
	}
	signed := func(key verifierKey) bool {
		for _, signer := range signers {
			if signer.name == key.name && signer.id() == key.id() {
				return true
			}
		}
		return false
	}
	byLog := false
	for _, log := range logs {
		byLog = byLog || signed(log)
	}
	if !byLog {
		return checkpoint{}, false, errors.New("checkpoint: the ledger has not signed it")
	}
	read, err := parseCheckpoint(text)
	if err != nil {
		return checkpoint{}, false, err
	}
	if read.origin != origin {
		return checkpoint{}, false, fmt.Errorf("checkpoint: of %s, not of %s", read.origin, origin)
	}
	return read, p.quorum == "none" || p.holds(p.quorum, signed), nil
}
