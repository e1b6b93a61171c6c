package agent

import (
	"bufio"
	"bytes"
	"context"
	"encoding/binary"
	"fmt"
	"io"
	"math"

	"google.golang.org/protobuf/encoding/protowire"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/client-go/kubernetes/scheme"
	"k8s.io/client-go/rest"
)

// decodable is an object of the API that has a protobuf encoding.
type decodable interface {
	metav1.ObjectMetaAccessor
	Unmarshal([]byte) error
}

// wire is the type of one, by its pointer.
type wire[T any] interface {
	*T
	decodable
}

// listSlim lists a resource of the whole cluster as a *metav1.List, and makes each object slim as soon as it has
// arrived, so that no more than one is ever held whole. The client's own List holds all of them twice, encoded
// and decoded; its stream of a list costs the API server twice as much, since that encodes an event for each object.
func listSlim[T any, P wire[T], S runtime.Object](ctx context.Context, client rest.Interface, resource string, options metav1.ListOptions, slim func(P) S) (runtime.Object, error) {
	body, err := client.Get().Resource(resource).VersionedParams(&options, scheme.ParameterCodec).
		SetHeader("Accept", runtime.ContentTypeProtobuf).Stream(ctx)
	if err != nil {
		return nil, err
	}
	defer body.Close()
	list := &metav1.List{}
	err = readList(body, &list.ListMeta, func(encoded []byte) error {
		object := P(new(T))
		if err := unmarshal(object, encoded); err != nil {
			return err
		}
		list.Items = append(list.Items, runtime.RawExtension{Object: slim(object)})
		return nil
	})
	if err != nil {
		return nil, fmt.Errorf("list %s: %w", resource, err)
	}
	return list, nil
}

// A list in Kubernetes' protobuf: this prefix, and a runtime.Unknown, one of whose fields is the list itself, which
// has two fields; an object's first field is its metadata as well (generated.proto of k8s.io/apimachinery/pkg/runtime,
// of pkg/apis/meta/v1 there, and of each API group).
const (
	wirePrefix         = "k8s\x00"
	rawField           = 2
	metaField          = 1
	itemsField         = 2
	managedFieldsField = 17 // of an object's metadata
)

// unmarshal decodes an object but for its managed fields, which nobody here reads. It leaves the encoding in pieces.
func unmarshal(object decodable, encoded []byte) error {
	number, kind, start := protowire.ConsumeTag(encoded)
	metadata, length := protowire.ConsumeBytes(encoded[max(start, 0):])
	if number != metaField || kind != protowire.BytesType || length < 0 {
		return object.Unmarshal(encoded) // it says what is wrong
	}
	kept := metadata[:0]
	for rest := metadata; len(rest) > 0; {
		number, _, length := protowire.ConsumeField(rest)
		if length < 0 {
			return protowire.ParseError(length)
		}
		if number != managedFieldsField {
			kept = append(kept, rest[:length]...)
		}
		rest = rest[length:]
	}
	if err := object.GetObjectMeta().(*metav1.ObjectMeta).Unmarshal(kept); err != nil {
		return err
	}
	return object.Unmarshal(encoded[start+length:])
}

// readList reads an encoded list, and calls each with one encoded object after the other, in order. What it is
// called with is good until it returns. An error where the list is not there to its end.
func readList(encoded io.Reader, meta *metav1.ListMeta, each func(object []byte) error) error {
	r := bufio.NewReaderSize(encoded, 64<<10)
	prefix := make([]byte, len(wirePrefix))
	if _, err := io.ReadFull(r, prefix); err != nil {
		return unended(err)
	}
	if string(prefix) != wirePrefix {
		return fmt.Errorf("the answer is not protobuf: it begins with %q", prefix)
	}
	field, length, err := readField(r)
	for ; err == nil && field != rawField; field, length, err = readField(r) {
		if _, err := io.CopyN(io.Discard, r, length); err != nil {
			return unended(err)
		}
	}
	if err != nil {
		return unended(err)
	}
	raw := &io.LimitedReader{R: r, N: length}
	r = bufio.NewReaderSize(raw, 64<<10)
	for message := new(bytes.Buffer); ; message.Reset() {
		field, length, err := readField(r)
		if err == io.EOF && raw.N == 0 {
			return nil
		}
		if err == nil {
			_, err = io.CopyN(message, r, length)
		}
		if err != nil {
			return unended(err)
		}
		switch field {
		case metaField:
			err = meta.Unmarshal(message.Bytes())
		case itemsField:
			err = each(message.Bytes())
		}
		if err != nil {
			return err
		}
	}
}

// readField reads the begin of a field, up to its value, which has so many bytes. All that is here has its length
// before it: it is a string or a message. io.EOF is only an error after the last field.
func readField(r *bufio.Reader) (field uint64, length int64, err error) {
	const lengthDelimited = 2
	tag, err := binary.ReadUvarint(r)
	if err != nil {
		return 0, 0, err
	}
	size, err := binary.ReadUvarint(r)
	if err != nil {
		return 0, 0, unended(err)
	}
	if tag&7 != lengthDelimited || size > math.MaxInt64 {
		return 0, 0, fmt.Errorf("field %d is not as Kubernetes encodes it", tag>>3)
	}
	return tag >> 3, int64(size), nil
}

func unended(err error) error {
	if err == io.EOF {
		return io.ErrUnexpectedEOF
	}
	return err
}
