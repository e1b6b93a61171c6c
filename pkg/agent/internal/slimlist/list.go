package slimlist

import (
	"bufio"
	"bytes"
	"cmp"
	"context"
	"encoding/binary"
	"fmt"
	"io"
	"math"

	"google.golang.org/protobuf/encoding/protowire"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/client-go/kubernetes/scheme"
)

// decodable is an object of the API with a protobuf encoding.
type decodable interface {
	metav1.ObjectMetaAccessor
	Unmarshal([]byte) error
}

// Decodable constrains a pointer to T, a type of the API with a protobuf encoding.
type Decodable[T any] interface {
	*T
	decodable
}

// list returns a *metav1.List of slim(object) for every object of the resource in the cluster. It decodes each object
// as soon as it arrives, so that the process never holds more than one full object. The List of the client holds the
// whole list twice, encoded and decoded. A list streamed as events costs the API server twice as much, because it
// encodes an event for each object.
func list[T any, P Decodable[T], S runtime.Object](ctx context.Context, resource Resource, options metav1.ListOptions, slim func(P) S) (runtime.Object, error) {
	body, err := resource.Client.Get().Resource(resource.Name).VersionedParams(&options, scheme.ParameterCodec).
		SetHeader("Accept", cmp.Or(resource.Accept, runtime.ContentTypeProtobuf)).Stream(ctx)
	if err != nil {
		return nil, err
	}
	defer body.Close()
	result := &metav1.List{}
	err = readList(body, &result.ListMeta, func(encoded []byte) error {
		object := P(new(T))
		if err := unmarshal(object, encoded); err != nil {
			return err
		}
		result.Items = append(result.Items, runtime.RawExtension{Object: slim(object)})
		return nil
	})
	if err != nil {
		return nil, fmt.Errorf("list %s: %w", resource.Name, err)
	}
	return result, nil
}

// Kubernetes encodes a list in protobuf as wirePrefix and a runtime.Unknown. Field rawField of that is the encoded
// list, whose fields are metaField and itemsField. Field metaField of an object is its metadata. Sources:
// generated.proto in k8s.io/apimachinery/pkg/runtime, k8s.io/apimachinery/pkg/apis/meta/v1, and each API group.
const (
	wirePrefix         = "k8s\x00"
	rawField           = 2
	metaField          = 1
	itemsField         = 2
	managedFieldsField = 17 // of an object's metadata
)

// unmarshal decodes an object without its managed fields, which the agent never reads. It overwrites encoded.
func unmarshal(object decodable, encoded []byte) error {
	number, kind, start := protowire.ConsumeTag(encoded)
	metadata, length := protowire.ConsumeBytes(encoded[max(start, 0):])
	if number != metaField || kind != protowire.BytesType || length < 0 {
		return object.Unmarshal(encoded) // decodes a valid encoding, or returns an error that describes the defect
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

// readList decodes the metadata of an encoded list into meta, and calls each with every encoded object in order. each
// must not retain its argument. It returns an error if the list is incomplete.
func readList(encoded io.Reader, meta *metav1.ListMeta, each func(object []byte) error) error {
	r := bufio.NewReaderSize(encoded, 64<<10)
	prefix := make([]byte, len(wirePrefix))
	if _, err := io.ReadFull(r, prefix); err != nil {
		return incomplete(err)
	}
	if string(prefix) != wirePrefix {
		return fmt.Errorf("the answer is not protobuf: it begins with %q", prefix)
	}
	field, length, err := readField(r)
	for ; err == nil && field != rawField; field, length, err = readField(r) {
		if _, err := io.CopyN(io.Discard, r, length); err != nil {
			return incomplete(err)
		}
	}
	if err != nil {
		return incomplete(err)
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
			return incomplete(err)
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

// readField reads the head of a field: the number, and the length of the value in bytes. Every field here is a string
// or a message, whose value follows its length. It returns io.EOF only at the end of the data, between two fields.
func readField(r *bufio.Reader) (field uint64, length int64, err error) {
	const lengthDelimited = 2
	tag, err := binary.ReadUvarint(r)
	if err != nil {
		return 0, 0, err
	}
	size, err := binary.ReadUvarint(r)
	if err != nil {
		return 0, 0, incomplete(err)
	}
	if tag&7 != lengthDelimited || size > math.MaxInt64 {
		return 0, 0, fmt.Errorf("field %d is not a string or a message", tag>>3)
	}
	return tag >> 3, int64(size), nil
}

// incomplete returns io.ErrUnexpectedEOF in place of io.EOF: the list ends too early.
func incomplete(err error) error {
	if err == io.EOF {
		return io.ErrUnexpectedEOF
	}
	return err
}
