package storage

import "context"

// Pages calls fn with the rows of a range, from its beginning, as many at a time as its
// Limit says, until there are no more or fn returns false or an error. Errors are those of
// Scan, or fn's.
func Pages(ctx context.Context, st Store, r Range, fn func([]Entry) (more bool, err error)) error {
	for {
		rows, err := st.Scan(ctx, r)
		if err != nil {
			return err
		}
		if more, err := fn(rows); err != nil || !more || len(rows) < r.Limit {
			return err
		}
		r.From = rows[len(rows)-1].Sort + "\x00"
	}
}

// Each is Pages with one row at a time.
func Each(ctx context.Context, st Store, r Range, fn func(Entry) (more bool, err error)) error {
	return Pages(ctx, st, r, func(rows []Entry) (more bool, err error) {
		for _, row := range rows {
			if more, err = fn(row); err != nil || !more {
				return false, err
			}
		}
		return true, nil
	})
}
