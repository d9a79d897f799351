// Package s3blob keeps blobs in a bucket of an S3 server.
//
// A value is one object. Its key is the blob's, below a prefix; there is no other
// state, so nodes share a bucket without knowing of each other.
package s3blob

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/url"
	"strings"
	"time"

	"github.com/minio/minio-go/v7"
	"github.com/minio/minio-go/v7/pkg/credentials"

	"github.com/hubbub-chat/hubbub/internal/blob"
)

const (
	// partBytes is the size from which a value is sent in parts, each of which can
	// be repeated; minio-go holds one part in memory where it cannot read it again.
	partBytes = 16 << 20
	// connectTimeout bounds the question at the start whether the bucket is there.
	connectTimeout = 30 * time.Second
	// maxRetries bounds how often a request is made in all, with up to a second between
	// two: who waits is better told to come back.
	maxRetries = 4
)

// Options say where the bucket is.
type Options struct {
	// Endpoint is host and port; Secure says whether it speaks TLS.
	Endpoint string
	Secure   bool
	Region   string
	Bucket   string
	// Prefix stands before each key, "" for none; otherwise it ends in a slash.
	Prefix string
	// AccessKey and SecretKey; "" takes them from where AWS tools look: the
	// environment (AWS_ACCESS_KEY_ID, …), then the role of the machine.
	AccessKey, SecretKey string
}

var errURL = errors.New("s3blob: want s3://bucket/prefix?endpoint=https://host&region=name")

// Parse reads a URL: s3://bucket/prefix?endpoint=https://host:port&region=name.
// Without an endpoint it is that of AWS; keys are never part of it.
func Parse(text string) (Options, error) {
	u, err := url.Parse(text)
	if err != nil || u.Scheme != "s3" || u.Host == "" || u.User != nil || u.Fragment != "" {
		return Options{}, errURL
	}
	q := u.Query()
	o := Options{Endpoint: "s3.amazonaws.com", Secure: true, Region: q.Get("region"), Bucket: u.Host}
	if o.Prefix = strings.Trim(u.Path, "/"); o.Prefix != "" {
		if blob.CheckKey(o.Prefix) != nil {
			return Options{}, errURL
		}
		o.Prefix += "/"
	}
	if e := q.Get("endpoint"); e != "" {
		at, err := url.Parse(e)
		if err != nil || at.Host == "" || (at.Scheme != "http" && at.Scheme != "https") || strings.Trim(at.Path, "/") != "" || at.User != nil {
			return Options{}, errURL
		}
		o.Endpoint, o.Secure = at.Host, at.Scheme == "https"
	}
	return o, nil
}

// Store is a blob.Store in a bucket.
type Store struct {
	client    minio.Core
	transport *http.Transport
	o         Options
}

var _ blob.Store = (*Store)(nil)

// Open connects, and checks that the bucket is there.
func Open(ctx context.Context, o Options) (*Store, error) {
	transport, err := minio.DefaultTransport(o.Secure)
	if err != nil {
		return nil, fmt.Errorf("s3blob: transport: %w", err)
	}
	keys := credentials.NewStaticV4(o.AccessKey, o.SecretKey, "")
	if o.AccessKey == "" {
		keys = credentials.NewChainCredentials([]credentials.Provider{
			&credentials.EnvAWS{}, &credentials.IAM{Client: &http.Client{Transport: transport}},
		})
	}
	client, err := minio.NewCore(o.Endpoint, &minio.Options{Creds: keys, Secure: o.Secure, Region: o.Region, Transport: transport, MaxRetries: maxRetries})
	if err != nil {
		return nil, fmt.Errorf("s3blob: %w", err)
	}
	s := &Store{client: *client, transport: transport, o: o}
	ctx, cancel := context.WithTimeout(ctx, connectTimeout)
	defer cancel()
	ok, err := client.BucketExists(ctx, o.Bucket)
	if err == nil && !ok {
		err = errors.New("no such bucket")
	}
	if err != nil {
		transport.CloseIdleConnections()
		return nil, fmt.Errorf("s3blob: bucket %q at %s: %w", o.Bucket, o.Endpoint, err)
	}
	return s, nil
}

// Put implements blob.Store.
func (s *Store) Put(ctx context.Context, key string, r io.Reader, size int64) error {
	if err := blob.CheckKey(key); err != nil {
		return err
	}
	counted := &exact{r: r, left: size}
	// Hidden from minio-go, a reader that can seek is read once, in order, and its
	// length is checked.
	_, err := s.client.Client.PutObject(ctx, s.o.Bucket, s.o.Prefix+key, counted, size, minio.PutObjectOptions{
		ContentType: "application/octet-stream", PartSize: partBytes, NumThreads: 1,
	})
	if err == nil {
		err = counted.end()
	}
	if err == nil {
		return nil
	}
	if counted.err != nil && !errors.Is(err, counted.err) {
		err = errors.Join(counted.err, err)
	}
	if code := minio.ToErrorResponse(err).Code; code == "XMinioStorageFull" || code == "QuotaExceeded" {
		err = errors.Join(blob.ErrFull, err)
	} else if counted.err == nil {
		err = away(ctx, err)
	}
	return fmt.Errorf("s3blob: put: %w", err)
}

// away marks an error of the network, or of a server that cannot answer now.
func away(ctx context.Context, err error) error {
	status := minio.ToErrorResponse(err).StatusCode
	if ctx.Err() == nil && (status >= http.StatusInternalServerError || status == 0 && errors.As(err, new(net.Error))) {
		return errors.Join(blob.ErrAway, err)
	}
	return err
}

// exact reads the announced number of bytes and says if there were not as many.
type exact struct {
	r    io.Reader
	left int64
	err  error
}

func (e *exact) Read(b []byte) (int, error) {
	if e.err != nil {
		return 0, e.err
	}
	if e.left == 0 {
		return 0, io.EOF
	}
	n, err := e.r.Read(b[:min(int64(len(b)), e.left)])
	e.left -= int64(n)
	switch {
	case err == io.EOF && e.left > 0:
		e.err = blob.ErrShort
	case err != nil && err != io.EOF:
		e.err = err
	}
	return n, e.err
}

// end reports whether the reader had been read to its end.
func (e *exact) end() error {
	if n, _ := io.ReadFull(e.r, make([]byte, 1)); n > 0 || e.left > 0 {
		return blob.ErrShort
	}
	return nil
}

// Open implements blob.Store.
func (s *Store) Open(ctx context.Context, key string) (blob.Object, error) {
	if err := blob.CheckKey(key); err != nil {
		return nil, err
	}
	o := &object{s: s, ctx: ctx, key: s.o.Prefix + key}
	if err := o.get(0); err != nil {
		return nil, err
	}
	return o, nil
}

// Delete implements blob.Store.
func (s *Store) Delete(ctx context.Context, keys ...string) error {
	for _, key := range keys {
		if err := blob.CheckKey(key); err != nil {
			return err
		}
		// S3 does not tell a key that was there from one that was not.
		if err := s.client.RemoveObject(ctx, s.o.Bucket, s.o.Prefix+key, minio.RemoveObjectOptions{}); err != nil && !missing(err) {
			return fmt.Errorf("s3blob: delete: %w", away(ctx, err))
		}
	}
	return nil
}

// Close implements blob.Store.
func (s *Store) Close() error {
	s.transport.CloseIdleConnections()
	return nil
}

func missing(err error) bool {
	r := minio.ToErrorResponse(err)
	return r.Code == "NoSuchKey" || r.Code == "NotFound" || r.StatusCode == http.StatusNotFound
}

// object reads an object by one request for each place it is read from: after
// Seek, nothing is asked for until the next Read.
type object struct {
	s   *Store
	ctx context.Context
	key string
	// size is -1 until the first answer.
	size int64
	at   int64
	// body continues at bodyAt; nil if it has to be asked for.
	body   io.ReadCloser
	bodyAt int64
}

func (o *object) get(offset int64) error {
	var opts minio.GetObjectOptions
	if offset > 0 {
		if err := opts.SetRange(offset, 0); err != nil {
			return fmt.Errorf("s3blob: range: %w", err)
		}
	}
	body, info, _, err := o.s.client.GetObject(o.ctx, o.s.o.Bucket, o.key, opts)
	if err != nil {
		if missing(err) {
			return blob.ErrNotFound
		}
		return fmt.Errorf("s3blob: get: %w", away(o.ctx, err))
	}
	if offset == 0 {
		o.size = info.Size
	}
	o.body, o.bodyAt = body, offset
	return nil
}

// Size implements blob.Object.
func (o *object) Size() int64 { return o.size }

// Read implements io.Reader.
func (o *object) Read(b []byte) (int, error) {
	if o.at >= o.size {
		return 0, io.EOF
	}
	if o.body != nil && o.bodyAt != o.at {
		if err := o.release(); err != nil {
			return 0, err
		}
	}
	if o.body == nil {
		if err := o.get(o.at); err != nil {
			return 0, err
		}
	}
	n, err := o.body.Read(b)
	o.at += int64(n)
	o.bodyAt = o.at
	if err == io.EOF && o.at < o.size {
		err = io.ErrUnexpectedEOF
	}
	return n, err
}

var errSeek = errors.New("s3blob: seek before the beginning")

// Seek implements io.Seeker.
func (o *object) Seek(offset int64, whence int) (int64, error) {
	switch whence {
	case io.SeekCurrent:
		offset += o.at
	case io.SeekEnd:
		offset += o.size
	}
	if offset < 0 {
		return 0, errSeek
	}
	o.at = offset
	return offset, nil
}

func (o *object) release() error {
	if o.body == nil {
		return nil
	}
	err := o.body.Close()
	o.body = nil
	if err != nil {
		return fmt.Errorf("s3blob: close: %w", err)
	}
	return nil
}

// Close implements io.Closer.
func (o *object) Close() error { return o.release() }
