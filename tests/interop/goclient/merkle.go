package main

import (
	"crypto/sha256"
	"errors"
	"fmt"
	"math/bits"
)

// hash is a SHA-256 value.
type hash [32]byte

// maxSize is the largest number of entries that is looked at (docs/integrating.md, step 6).
const maxSize = 1<<63 - 1

// leafHash is SHA-256(0x00 || entry) (RFC 6962, section 2.1).
func leafHash(entry []byte) hash {
	return sha256.Sum256(append([]byte{0}, entry...))
}

// nodeHash is SHA-256(0x01 || left || right) (RFC 6962, section 2.1).
func nodeHash(left, right hash) hash {
	joined := make([]byte, 0, 65)
	joined = append(joined, 1)
	joined = append(joined, left[:]...)
	return sha256.Sum256(append(joined, right[:]...))
}

// span is the leaves [begin, end) of a tree.
type span struct{ begin, end uint64 }

// split is where RFC 6962, section 2.1, divides a span of two leaves or more: the left part has the
// largest power of two of leaves that is smaller than the whole.
func (s span) split() (span, span) {
	middle := s.begin + 1<<(bits.Len64(s.end-s.begin-1)-1)
	return span{s.begin, middle}, span{middle, s.end}
}

// compactRange returns the aligned perfect subtrees that make up a span, left to right: from the left,
// each time the largest that fits.
func compactRange(s span) []span {
	var blocks []span
	for at := s.begin; at < s.end; {
		width := uint64(1) << (bits.Len64(s.end-at) - 1)
		if at != 0 {
			width = min(width, at&-at)
		}
		blocks = append(blocks, span{at, at + width})
		at += width
	}
	return blocks
}

// subtrees holds the roots of some subtrees, and works out those above them.
type subtrees map[span]hash

// root returns the root of a span whose parts are all known.
func (known subtrees) root(s span) (hash, error) {
	if found, ok := known[s]; ok {
		return found, nil
	}
	if s.end-s.begin < 2 {
		return hash{}, fmt.Errorf("no hash for leaf %d", s.begin)
	}
	left, right := s.split()
	leftRoot, err := known.root(left)
	if err != nil {
		return hash{}, err
	}
	rightRoot, err := known.root(right)
	if err != nil {
		return hash{}, err
	}
	known[s] = nodeHash(leftRoot, rightRoot)
	return known[s], nil
}

// path returns the inclusion path of a leaf in a span whose root is known: the leaf's sibling first.
func (known subtrees) path(index uint64, s span) ([]hash, error) {
	if s.end-s.begin == 1 {
		return nil, nil
	}
	inside, sibling := s.split()
	if index >= inside.end {
		inside, sibling = sibling, inside
	}
	path, err := known.path(index, inside)
	if err != nil {
		return nil, err
	}
	root, err := known.root(sibling)
	return append(path, root), err
}

// submissionTree returns the root over the leaves and each leaf's path.
func submissionTree(leaves []hash) (hash, [][]hash, error) {
	if len(leaves) == 0 {
		return hash{}, nil, errors.New("a submission has at least one record")
	}
	return verified(subtrees{}, span{0, uint64(len(leaves))}, 0, leaves)
}

// verifyRange checks that leaves stand at [begin, begin+len(leaves)) in the tree of this size and root,
// and returns each leaf's inclusion path (docs/integrating.md, step 6).
//
// The range comes from the question and size and root from a verified checkpoint; the proof gives hashes
// only.
func verifyRange(begin, size uint64, leaves []hash, proof [][]byte, root hash) ([][]hash, error) {
	count := uint64(len(leaves))
	if count == 0 || size > maxSize || begin >= size || count > size-begin {
		return nil, fmt.Errorf("no %d entries from %d in a tree of %d", count, begin, size)
	}
	blocks := append(compactRange(span{0, begin}), compactRange(span{begin + count, size})...)
	if len(blocks) != len(proof) {
		return nil, fmt.Errorf("the range proof has %d hashes, not %d", len(proof), len(blocks))
	}
	known := subtrees{}
	for i, block := range blocks {
		if len(proof[i]) != len(hash{}) {
			return nil, fmt.Errorf("hash %d of the range proof has %d bytes", i, len(proof[i]))
		}
		known[block] = hash(proof[i])
	}
	found, paths, err := verified(known, span{0, size}, begin, leaves)
	if err != nil {
		return nil, err
	}
	if found != root {
		return nil, errors.New("the range proof does not lead to the checkpoint's root")
	}
	return paths, nil
}

// verified adds leaves to what is known, and returns the root over the whole and each leaf's path.
func verified(known subtrees, whole span, begin uint64, leaves []hash) (hash, [][]hash, error) {
	for i, leaf := range leaves {
		at := begin + uint64(i)
		known[span{at, at + 1}] = leaf
	}
	root, err := known.root(whole)
	if err != nil {
		return hash{}, nil, err
	}
	paths := make([][]hash, len(leaves))
	for i := range leaves {
		if paths[i], err = known.path(begin+uint64(i), whole); err != nil {
			return hash{}, nil, err
		}
	}
	return root, paths, nil
}

// rootFromPath returns the root that a path leads to; the index and the size fix its length and its turns
// (RFC 9162, section 2.1.3.2).
func rootFromPath(index, size uint64, leaf hash, path []hash) (hash, error) {
	if size > maxSize || index >= size {
		return hash{}, fmt.Errorf("no entry %d in a tree of %d", index, size)
	}
	inner := bits.Len64(index ^ (size - 1))
	if length := inner + bits.OnesCount64(index>>inner); len(path) != length {
		return hash{}, fmt.Errorf("the path has %d hashes, not %d", len(path), length)
	}
	for level, sibling := range path {
		if level >= inner || index>>level&1 == 1 {
			leaf = nodeHash(sibling, leaf)
		} else {
			leaf = nodeHash(leaf, sibling)
		}
	}
	return leaf, nil
}
