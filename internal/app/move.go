package app

import (
	"context"
	"errors"
	"fmt"
	"io"
	"maps"
	"slices"
	"strconv"

	"github.com/prometheus/client_golang/prometheus"

	"github.com/hubbub-chat/hubbub/internal/config"
	"github.com/hubbub-chat/hubbub/internal/ids"
	"github.com/hubbub-chat/hubbub/internal/obs"
	"github.com/hubbub-chat/hubbub/internal/storage/pgstore"
)

// MoveOptions say what MovePartition does.
type MoveOptions struct {
	// Partition is a number, or "" to be told where the partitions are.
	Partition string
	// To is the number of a database of server.store, from 1.
	To string
	// Keep leaves the old copy.
	Keep bool
}

// MovePartition takes a partition to another database while the deployment runs.
func MovePartition(ctx context.Context, cfg config.Config, opts MoveOptions, out io.Writer) (err error) {
	s, err := openBackend(ctx, cfg, prometheus.NewRegistry(), obs.Discard())
	if err != nil {
		return fmt.Errorf("move partition: %w", err)
	}
	defer func() {
		if err = errors.Join(err, s.Close()); err != nil {
			err = fmt.Errorf("move partition: %w", err)
		}
	}()
	pg, ok := s.Store.(*pgstore.Store)
	if !ok {
		return errors.New("the store is not PostgreSQL: its partitions are in one place")
	}
	fixed, err := s.meta(ctx, metaPartitions)
	if err != nil {
		return err
	}
	count, err := strconv.Atoi(string(fixed))
	if err != nil {
		return errors.New("the databases hold no deployment")
	}
	if opts.Partition == "" {
		return listPlaces(pg, count, out)
	}
	p, err := strconv.Atoi(opts.Partition)
	if err != nil || p < 0 || p >= count {
		return fmt.Errorf("there is no partition %q: they have the numbers 0 to %d", opts.Partition, count-1)
	}
	to, err := strconv.Atoi(opts.To)
	if err != nil {
		return fmt.Errorf("--to is the number of a database, 1 to %d", pg.Databases())
	}
	var written error
	r, err := pg.MovePartition(ctx, ids.Partition(p), pgstore.MoveOptions{To: to, Keep: opts.Keep, Step: func(what string) error {
		_, written = fmt.Fprintf(out, "%s\n", what)
		return written
	}})
	if err != nil {
		return err
	}
	if r.Already {
		_, err = fmt.Fprintf(out, "partition %d is in database %d\n", p, to)
	} else {
		_, err = fmt.Fprintf(out, "partition %d is in database %d: %d rows were counted and hashed on both sides, and %d changes compared\n", p, to, r.Rows, r.Changes)
	}
	return err
}

// listPlaces tells which partitions are in which database.
func listPlaces(pg *pgstore.Store, count int, out io.Writer) error {
	in := make(map[int][]int)
	for i := range pg.Databases() {
		in[i+1] = nil
	}
	for p := range count {
		at := pg.Place(ids.Partition(p))
		in[at] = append(in[at], p)
	}
	for _, database := range slices.Sorted(maps.Keys(in)) {
		if _, err := fmt.Fprintf(out, "database %d: %d partitions %v\n", database, len(in[database]), in[database]); err != nil {
			return err
		}
	}
	return nil
}
