// Readlog reads a whole log over HTTP with filippo.io/torchwood and golang.org/x/mod/sumdb, as a monitor written
// in Go would: the checkpoint, every entry against the tree, the last entry's inclusion, and, from an earlier
// checkpoint, consistency.
//
//	readlog [-since NOTE] URL VKEY
//
// Prints one line of JSON: the size, the root, and the SHA-256 of all entries joined. Exit status 1 when anything
// does not hold, and why on stderr.
package main

import (
	"context"
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"flag"
	"fmt"
	"os"

	"filippo.io/torchwood"
	"golang.org/x/mod/sumdb/note"
	"golang.org/x/mod/sumdb/tlog"
)

func main() {
	since := flag.String("since", "", "an earlier checkpoint's `note`, which the log must have grown from")
	flag.Parse()
	if flag.NArg() != 2 {
		fmt.Fprintln(os.Stderr, "usage: readlog [-since NOTE] URL VKEY")
		os.Exit(2)
	}
	read, err := readLog(context.Background(), flag.Arg(0), flag.Arg(1), *since)
	if err != nil {
		fmt.Fprintln(os.Stderr, "readlog:", err)
		os.Exit(1)
	}
	json.NewEncoder(os.Stdout).Encode(read)
}

type whatWasRead struct {
	Size    int64  `json:"size"`
	Root    string `json:"root"`
	Entries string `json:"entries"`
}

func readLog(ctx context.Context, url, vkey, since string) (*whatWasRead, error) {
	// A limit, since by default every tile of fifty is asked for at once.
	fetcher, err := torchwood.NewTileFetcher(url, torchwood.WithConcurrencyLimit(8))
	if err != nil {
		return nil, err
	}
	data, err := fetcher.ReadEndpoint(ctx, "checkpoint")
	if err != nil {
		return nil, err
	}
	tree, err := openCheckpoint(data, vkey)
	if err != nil {
		return nil, err
	}
	client, err := torchwood.NewClient(fetcher)
	if err != nil {
		return nil, err
	}
	joined := sha256.New()
	for next := int64(0); next < tree.N; {
		before := next
		for index, entry := range client.Entries(ctx, tree, next) {
			joined.Write(entry)
			next = index + 1
		}
		if err := client.Err(); err != nil {
			return nil, err
		}
		if next == before {
			return nil, fmt.Errorf("no entries after %d of %d", next, tree.N)
		}
	}
	if tree.N > 0 {
		if _, _, err := client.Entry(ctx, tree, tree.N-1); err != nil {
			return nil, err
		}
	}
	if since != "" {
		if err := checkGrowth(ctx, fetcher, tree, vkey, since); err != nil {
			return nil, err
		}
	}
	return &whatWasRead{tree.N, tree.Hash.String(), hex.EncodeToString(joined.Sum(nil))}, nil
}

func openCheckpoint(data []byte, vkey string) (tlog.Tree, error) {
	verifier, err := note.NewVerifier(vkey)
	if err != nil {
		return tlog.Tree{}, err
	}
	opened, err := note.Open(data, note.VerifierList(verifier))
	if err != nil {
		return tlog.Tree{}, err
	}
	checkpoint, err := torchwood.ParseCheckpoint(opened.Text)
	if err != nil {
		return tlog.Tree{}, err
	}
	if checkpoint.Origin != verifier.Name() {
		return tlog.Tree{}, fmt.Errorf("origin is %q, not %q", checkpoint.Origin, verifier.Name())
	}
	return checkpoint.Tree, nil
}

func checkGrowth(ctx context.Context, fetcher *torchwood.TileFetcher, tree tlog.Tree, vkey, since string) error {
	data, err := os.ReadFile(since)
	if err != nil {
		return err
	}
	earlier, err := openCheckpoint(data, vkey)
	if err != nil {
		return err
	}
	hashes := torchwood.TileHashReaderWithContext(ctx, tree, fetcher)
	proof, err := tlog.ProveTree(tree.N, earlier.N, hashes)
	if err != nil {
		return err
	}
	return tlog.CheckTree(proof, tree.N, tree.Hash, earlier.N, earlier.Hash)
}
