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

	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/client-go/kubernetes/scheme"
)

// Decodable is the type constraint for a pointer to T, an API type with a protobuf encoding.
type Decodable[T any] interface {
	*T
	Unmarshal([]byte) error
}

// List returns reduce(object) for every object that the resource has now, and the resourceVersion of the list. It
// returns an error if the answer is incomplete.
func List[T any, P Decodable[T], S any](
	ctx context.Context, resource Resource, reduce func(P) S,
) (items []S, resourceVersion string, err error) {
	var options metav1.ListOptions
	resource.narrow(&options)
	listMeta, err := read(ctx, resource, options, func(object P) { items = append(items, reduce(object)) })
	if err != nil {
		return nil, "", err
	}
	if listMeta.Continue != "" {
		return nil, "", fmt.Errorf("list %s: the answer is one page of several: %w", resource.Name, io.ErrUnexpectedEOF)
	}
	return items, listMeta.ResourceVersion, nil
}

// list returns a *metav1.List of reduce(object) for every object of the resource in the cluster.
func list[T any, P Decodable[T], S runtime.Object](
	ctx context.Context, resource Resource, options metav1.ListOptions, reduce func(P) S,
) (runtime.Object, error) {
	result := &metav1.List{}
	listMeta, err := read(ctx, resource, options, func(object P) {
		result.Items = append(result.Items, runtime.RawExtension{Object: reduce(object)})
	})
	if err != nil {
		return nil, err
	}
	result.ListMeta = listMeta
	return result, nil
}

// read calls handle with every object of the resource. It decodes each object as soon as the object arrives, so that the
// process never holds more than one full object. The List method of the client would hold the whole list twice, encoded
// and decoded. A list streamed as events would cost the API server twice as much, because the API server encodes an event
// for each object.
func read[T any, P Decodable[T]](
	ctx context.Context, resource Resource, options metav1.ListOptions, handle func(P),
) (listMeta metav1.ListMeta, err error) {
	body, err := resource.Client.Get().NamespaceIfScoped(resource.Namespace, resource.Namespace != "").Resource(resource.Name).VersionedParams(&options, scheme.ParameterCodec).
		SetHeader("Accept", cmp.Or(resource.Accept, runtime.ContentTypeProtobuf)).Stream(ctx)
	if err != nil {
		return listMeta, err
	}
	defer body.Close()
	err = readList(body, &listMeta, func(encoded []byte) error {
		object := P(new(T))
		if err := object.Unmarshal(encoded); err != nil {
			return err
		}
		handle(object)
		return nil
	})
	if err != nil {
		return listMeta, fmt.Errorf("list %s: %w", resource.Name, err)
	}
	return listMeta, nil
}

// Kubernetes encodes a list in protobuf as wirePrefix and a runtime.Unknown. Field rawField of the runtime.Unknown is
// the encoded list, whose fields are metaField and itemsField. Sources: generated.proto in k8s.io/apimachinery/pkg/runtime, k8s.io/apimachinery/pkg/apis/meta/v1, and each API group.
const (
	wirePrefix = "k8s\x00"
	rawField   = 2
	metaField  = 1
	itemsField = 2
)

// readList decodes the metadata of an encoded list into listMeta, and calls handleItem with every encoded object in
// order. handleItem must not retain its argument. readList returns an error if the list is incomplete.
func readList(encoded io.Reader, listMeta *metav1.ListMeta, handleItem func(encodedObject []byte) error) error {
	r := bufio.NewReaderSize(encoded, 64<<10)
	prefix := make([]byte, len(wirePrefix))
	if _, err := io.ReadFull(r, prefix); err != nil {
		return errIncomplete(err)
	}
	if string(prefix) != wirePrefix {
		return fmt.Errorf("the answer is not protobuf: it begins with %q", prefix)
	}
	field, length, err := readField(r)
	for ; err == nil && field != rawField; field, length, err = readField(r) {
		if _, err := io.CopyN(io.Discard, r, length); err != nil {
			return errIncomplete(err)
		}
	}
	if err != nil {
		return errIncomplete(err)
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
			return errIncomplete(err)
		}
		switch field {
		case metaField:
			err = listMeta.Unmarshal(message.Bytes())
		case itemsField:
			err = handleItem(message.Bytes())
		}
		if err != nil {
			return err
		}
	}
}

// readField reads the head of a field: its number, and the length of its value in bytes. In a list every field is a
// string or a message, whose value follows its length. readField returns io.EOF only if the data ends before the field.
func readField(r *bufio.Reader) (number uint64, length int64, err error) {
	const lengthDelimited = 2
	tag, err := binary.ReadUvarint(r)
	if err != nil {
		return 0, 0, err
	}
	size, err := binary.ReadUvarint(r)
	if err != nil {
		return 0, 0, errIncomplete(err)
	}
	if tag&7 != lengthDelimited || size > math.MaxInt64 {
		return 0, 0, fmt.Errorf("field %d is not a string or a message", tag>>3)
	}
	return tag >> 3, int64(size), nil
}

// errIncomplete returns io.ErrUnexpectedEOF in place of io.EOF, because the list ends too early. It returns any other
// error unchanged.
func errIncomplete(err error) error {
	if err == io.EOF {
		return io.ErrUnexpectedEOF
	}
	return err
}
