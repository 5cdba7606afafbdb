// Command grpc calls peers.Echo, in which messages are bytes, and writes a line for each call.
//
// Usage: grpc ADDRESS AUTHORITY tls|plain CALL...
package main

import (
	"context"
	"crypto/tls"
	"fmt"
	"io"
	"os"
	"strings"
	"time"

	"google.golang.org/grpc"
	"google.golang.org/grpc/credentials"
	"google.golang.org/grpc/credentials/insecure"
	"google.golang.org/grpc/metadata"
	"google.golang.org/grpc/status"
)

// raw takes messages as they are.
type raw struct{}

func (raw) Marshal(v any) ([]byte, error)      { return *v.(*[]byte), nil }
func (raw) Unmarshal(data []byte, v any) error { *v.(*[]byte) = append([]byte{}, data...); return nil }
func (raw) Name() string                       { return "raw" }

// patience is what a call may take that is not about deadlines.
const patience = 60 * time.Second

var both = &grpc.StreamDesc{ClientStreams: true, ServerStreams: true}

func main() {
	address, authority, security, calls := os.Args[1], os.Args[2], os.Args[3], os.Args[4:]
	creds := insecure.NewCredentials()
	if security == "tls" {
		// Who the server is, is not the question here.
		creds = credentials.NewTLS(&tls.Config{InsecureSkipVerify: true})
	}
	conn, err := grpc.NewClient("passthrough:///"+address,
		grpc.WithTransportCredentials(creds),
		grpc.WithAuthority(authority),
		grpc.WithNoProxy(),
		grpc.WithDefaultCallOptions(grpc.ForceCodec(raw{})))
	if err != nil {
		fmt.Fprintln(os.Stderr, err)
		os.Exit(1)
	}
	defer conn.Close()
	for _, call := range calls {
		name, argument, _ := strings.Cut(call, " ")
		fmt.Printf("%s: %s\n", call, run(conn, name, argument))
	}
}

func run(conn *grpc.ClientConn, name, argument string) string {
	limit := patience
	if name == "deadline" {
		limit = 500 * time.Millisecond
	}
	ctx, cancel := context.WithTimeout(context.Background(), limit)
	defer cancel()
	switch name {
	case "unary":
		return unary(ctx, conn, argument)
	case "deadline":
		return unary(ctx, conn, "hang")
	case "up":
		return up(ctx, conn)
	case "down":
		return down(ctx, conn, argument)
	case "both":
		return bidirectional(ctx, conn)
	}
	return "no such call"
}

func unary(ctx context.Context, conn *grpc.ClientConn, ask string) string {
	ctx = metadata.AppendToOutgoingContext(ctx, "echo-this", "a value")
	question, answer := []byte(ask), []byte{}
	var header, trailer metadata.MD
	err := conn.Invoke(ctx, "/peers.Echo/Unary", &question, &answer,
		grpc.Header(&header), grpc.Trailer(&trailer))
	if err != nil {
		return failure(err, trailer)
	}
	return fmt.Sprintf("OK %s, %s", answer, header.Get("echo-this"))
}

// up sends a hundred messages of 1,000 bytes.
func up(ctx context.Context, conn *grpc.ClientConn) string {
	stream, err := conn.NewStream(ctx, both, "/peers.Echo/Up")
	if err != nil {
		return failure(err, nil)
	}
	message := make([]byte, 1000)
	for range 100 {
		if err := stream.SendMsg(&message); err == io.EOF {
			// It has ended; the next that is received says how.
			break
		} else if err != nil {
			return failure(err, stream.Trailer())
		}
	}
	if err := stream.CloseSend(); err != nil {
		return failure(err, stream.Trailer())
	}
	var answer []byte
	if err := stream.RecvMsg(&answer); err != nil {
		return failure(err, stream.Trailer())
	}
	return ended(stream, "OK "+string(answer))
}

// down asks for messages and counts them.
func down(ctx context.Context, conn *grpc.ClientConn, ask string) string {
	stream, err := conn.NewStream(ctx, both, "/peers.Echo/Down")
	if err != nil {
		return failure(err, nil)
	}
	question := []byte(ask)
	if err := stream.SendMsg(&question); err != nil && err != io.EOF {
		return failure(err, stream.Trailer())
	}
	if err := stream.CloseSend(); err != nil {
		return failure(err, stream.Trailer())
	}
	count, bytes := 0, 0
	for {
		var message []byte
		err := stream.RecvMsg(&message)
		if err != nil {
			told := fmt.Sprintf("%d messages, %d bytes", count, bytes)
			if err == io.EOF {
				return "OK " + told
			}
			return told + ", " + failure(err, stream.Trailer())
		}
		count, bytes = count+1, bytes+len(message)
	}
}

// bidirectional sends the next message when the last one has come back.
func bidirectional(ctx context.Context, conn *grpc.ClientConn) string {
	stream, err := conn.NewStream(ctx, both, "/peers.Echo/Both")
	if err != nil {
		return failure(err, nil)
	}
	for number := range 20 {
		sent, came := []byte(fmt.Sprint("message ", number)), []byte{}
		if err := stream.SendMsg(&sent); err != nil && err != io.EOF {
			return failure(err, stream.Trailer())
		}
		if err := stream.RecvMsg(&came); err != nil {
			return failure(err, stream.Trailer())
		}
		if string(came) != string(sent) {
			return fmt.Sprintf("%q came back as %q", sent, came)
		}
	}
	if err := stream.CloseSend(); err != nil {
		return failure(err, stream.Trailer())
	}
	return ended(stream, "OK 20")
}

// ended waits for the end of a stream that has nothing more to say.
func ended(stream grpc.ClientStream, told string) string {
	var more []byte
	if err := stream.RecvMsg(&more); err != io.EOF {
		return fmt.Sprintf("%s, then %v", told, err)
	}
	return told
}

func failure(err error, trailer metadata.MD) string {
	told := status.Convert(err)
	text := told.Code().String()
	if strings.Contains(told.Message(), "unexpected HTTP status") {
		// The client's own translation of an answer that is none of gRPC.
		text += " by HTTP"
	}
	if reason := trailer.Get("reason"); len(reason) > 0 {
		text += fmt.Sprintf(" %q %q %x", told.Message(), reason, trailer.Get("detail-bin"))
	}
	return text
}
