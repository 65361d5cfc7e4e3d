package io.flwrcaesar.bench

import io.flwrcaesar.enrol.Enrolment
import io.flwrcaesar.enrol.EnrolmentException
import io.flwrcaesar.enrol.Ticket
import io.flwrcaesar.fleet.FlowerObject
import io.flwrcaesar.fleet.Metadata
import io.flwrcaesar.fleet.Packed
import io.flwrcaesar.fleet.SoftwareSigner
import io.flwrcaesar.frame.CodecError

/** Flower's messages and the fleet's tickets, as the tests ask for them. */
class FleetBench {
    fun answer(question: Question): Reply =
        try {
            when (val command = question.text("do")) {
                "inflate" -> inflate(question)
                "deflate" -> deflate(question)
                "enrol" -> enrol(question)
                else -> throw IllegalArgumentException("no command $command")
            }
        } catch (err: CodecError) {
            Reply(mapOf("refused" to err.message))
        } catch (err: EnrolmentException) {
            Reply(mapOf("refused" to err.message))
        }

    // Blobs: the objects of a message.
    private fun inflate(question: Question): Reply {
        val objects = question.blobs.associateBy(FlowerObject::idOf)
        val content = Packed.content(question.text("root")) { objects.getValue(it) }
        return Reply(mapOf("content" to JsonContent.write(content)))
    }

    // Returns the reply to a message that was sent at 1000 s for 60 s, made at 1010.5 s.
    private fun deflate(question: Question): Reply {
        val request = Metadata(-5, "request", 1, -7, "", "group", 60.0, "train", 1000.0, 3, 4)
        val content = question.arguments["content"]
        val packed =
            if (content == null) {
                Packed.ofError(request.ofReply(1010.5), 2, question.text("reason"))
            } else {
                Packed.of(request.ofReply(1010.5), JsonContent.read(content))
            }
        return Reply(
            mapOf("root" to packed.tree.id, "ids" to packed.tree.ids(), "message" to packed.metadata.messageId),
            packed.tree.ids().map { packed.objects.getValue(it).bytes },
        )
    }

    private fun enrol(question: Question): Reply {
        val signer = SoftwareSigner.generate()
        val ticket = Ticket.of(question.text("ticket"))
        return Reply(
            mapOf(
                "request" to Enrolment(signer, "1.2.3").request(ticket),
                "key" to signer.publicKey.decodeToString(),
                "address" to ticket.address,
                "authority" to ticket.authority.decodeToString(),
            ),
        )
    }

    companion object {
        val COMMANDS = setOf("inflate", "deflate", "enrol")
    }
}
